"""The driver: starts servers, pools and producers, injects faults, heals everything, and judges the result."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import django
from django.core.management import call_command

from tests.chaos.faults import Form, draw
from tests.chaos.observer import Observer
from tests.chaos.stage import LEASE, MARK, Stage
from tests.chaos.strikes import Strikes

PROGRESS_EACH = 10.0  # seconds between two lines of progress
POLL_EACH = 1.0  # seconds between two checks of the run
RECYCLED = "it will be replaced"  # in the log of a worker that has reached its limit of memory
PER_WORKER_KILL, PER_VALKEY_KILL = 10.0, 40.0  # seconds, by the weights and pauses of the long form
STARTUP = 120.0  # seconds for all pools to start, on a slow machine
MAX_OVERRUN = 4  # multiple of the planned time after which a run that does not reach its quotas ends


@dataclass
class Report:
    """The configuration and the results of a run."""

    form: Form
    seed: int
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """The durations of faults, healing and judgment."""
    activities: dict[str, int] = field(default_factory=dict)
    observed: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    pools: dict[str, list[int]] = field(default_factory=dict)
    recycled: int = 0
    """Workers that were replaced because tasks had leaked memory."""
    schedule: list[dict[str, object]] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)
    folder: str = ""
    """The folder of the logs and of the observer's store, if there are findings."""

    @property
    def is_clean(self) -> bool:
        """Whether there are no findings."""
        return not any(self.findings.values())

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps({**asdict(self), "is_clean": self.is_clean}, indent=2)


class Run:
    """One run."""

    def __init__(self, form: Form, seed: int, folder: Path) -> None:
        self.form, self.seed = form, seed
        self.report = Report(form, seed, folder=str(folder))
        self.folder = folder
        self.observer = Observer(folder)
        self.stage = Stage(form, seed, folder)
        self.strikes = Strikes(self.stage)
        self.problems: list[str] = []
        self._schedule = draw(seed, form, LEASE)
        self._said = 0.0
        self._began = time.monotonic()

    def go(self) -> Report:
        """Run everything."""
        with self.stage:
            try:
                self._prepare()
                self._time("start", self._wait_for_workers)
                self._time("faults", self._rage)
                self._time("healing", self._heal)
                self._time("judgment", self._judge)
            finally:
                self._end_everything()
        return self.report

    def _prepare(self) -> None:
        # Without the mark: processes that the driver starts do not belong to the run.
        os.environ.update({name: value for name, value in self.stage.environment(None).items() if name != MARK})
        django.setup()
        from django.db import connections

        call_command("migrate", verbosity=0)
        self.report.versions = _versions()
        connections.close_all()  # the server will be restarted
        self.stage.start()

    def _wait_for_workers(self) -> None:
        """Wait until all pools work, so that faults have an effect."""
        deadline = time.monotonic() + STARTUP
        while not self.stage.is_working():
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"The pools did not start within {STARTUP:.0f} s: {self._log('pool-0-0.log')[-3000:]}"
                )
            self._look()
            time.sleep(0.1)

    def _rage(self) -> None:
        """Inject faults until the quotas of faults and activities are reached."""
        planned = max(
            self.form.seconds,
            self.form.activities / self.form.rate / self.form.producers,
            self.form.worker_kills * PER_WORKER_KILL,
            self.form.valkey_kills * PER_VALKEY_KILL,
        )
        until, limit = time.monotonic() + self.form.seconds, time.monotonic() + MAX_OVERRUN * planned + 60
        fault = next(self._schedule)
        due, looked = time.monotonic() + fault.pause, 0.0
        while time.monotonic() < limit:
            now = time.monotonic()
            if now >= due:
                self.report.schedule.append(fault.as_dict())
                self.strikes.strike(fault)
                fault = next(self._schedule)
                due = now + fault.pause
            if now - looked >= POLL_EACH:
                looked = now
                self._look()
                if now >= until and self._has_enough():
                    return
            time.sleep(0.02)
        self.problems.append(f"The quotas were not reached within {limit - until:.0f} s.")

    def _look(self) -> None:
        for pool in self.stage.pools:
            pool.restart_if_ended()
        for number, producer in enumerate(self.stage.producers):
            if producer.poll() is not None:
                raise RuntimeError(f"Producer {number} has ended: {self._log(f'producer-{number}.log')[-3000:]}")
        if time.monotonic() - self._said > PROGRESS_EACH:
            self._say_progress()

    def _has_enough(self) -> bool:
        happened = self.strikes.happened
        return (
            self.observer.counts()["enqueued"] >= self.form.activities
            and happened["kill_worker"] >= self.form.worker_kills
            and happened["kill_valkey"] >= self.form.valkey_kills
        )

    def _heal(self) -> None:
        """End all faults and producers, then wait until every activity has ended, and stop the pools."""
        self.strikes.heal()
        codes = self.stage.stop_producers()
        deadline = time.monotonic() + self.form.deadline
        # A pool that has not started yet would be ended by the signal instead of draining.
        while (self._active() or not self.stage.is_up()) and time.monotonic() < deadline:
            time.sleep(0.2)
            self._look_at_pools()
        if left := self._active():
            self.problems.append(f"{left} activities had not ended {self.form.deadline:.0f} s after the healing.")
        zombies = self.stage.zombies()
        mid_run = [code for pool in self.stage.pools for code in pool.codes]
        for pool in self.stage.pools:
            pool.codes.clear()
        self.stage.stop_pools()
        self.exit_codes = {
            "the producers": codes,
            "the pools, stopped in peace,": [code for pool in self.stage.pools for code in pool.codes],
            # It may have had to kill a frozen process, or may not have started yet.
            "a pool, stopped in chaos,": [code for code in mid_run if code not in (0, 3, -signal.SIGTERM)],
        }
        self.report.pools = {"stopped": mid_run, "ended by themselves": [c for p in self.stage.pools for c in p.ended]}
        self.report.recycled = sum(pool.output().count(RECYCLED) for pool in self.stage.pools)
        self.left_over = zombies + self._wait_for_the_last()

    def _look_at_pools(self) -> None:
        for pool in self.stage.pools:
            pool.restart_if_ended()
        if time.monotonic() - self._said > PROGRESS_EACH:
            self._say_progress()

    def _wait_for_the_last(self) -> list[str]:
        """Return the processes that have not ended in time; processes of a killed pool also have a grace period."""
        deadline = time.monotonic() + 20
        while (left := self.stage.left_over()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _judge(self) -> None:
        from tests.chaos.collect import collect
        from tests.chaos.judgment import judge

        self.observer.stop()
        events = self.observer.events()
        history = collect(events, self.left_over, self.exit_codes)
        self.report.findings = {**judge(history), "the run itself": self.problems + self.strikes.errors}
        self.report.activities = dict(Counter(f"{row.task} {row.status}" for row in history.rows))
        self.report.activities["all"] = len(history.rows)
        self.report.observed = dict(Counter(event.kind for event in events))
        self.report.faults, self.report.skipped = dict(self.strikes.happened), dict(self.strikes.skipped)

    def _end_everything(self) -> None:
        from django.db import connections

        connections.close_all()
        self.observer.stop()
        self.stage.kill_all()

    def _active(self) -> int:
        from django_agentexec.models import Activity

        return Activity.objects.active().count()

    def _say_progress(self) -> None:
        self._said = time.monotonic()
        counts = self.observer.counts()
        print(
            f"{time.monotonic() - self._began:6.0f} s: {counts['enqueued']} enqueued, {counts['start']} started, "
            f"{counts['returned']} returned; {dict(self.strikes.happened)}",
            flush=True,
        )

    def _log(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def _time(self, what: str, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        self.report.seconds[what] = round(time.monotonic() - began, 1)


def run(form: Form, seed: int) -> Report:
    """Run in this process, in which Django must not be set up yet."""
    folder = Path(tempfile.mkdtemp(prefix="agentexec-chaos-"))
    report = Run(form, seed, folder).go()
    if report.is_clean:
        shutil.rmtree(folder, ignore_errors=True)
        report.folder = ""
    return report


def _versions() -> dict[str, str]:
    import redis
    from django.db import connection

    from django_agentexec import __version__
    from django_agentexec.queues import get_queue

    server = get_queue().client.info("server")  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute("SELECT version()" if connection.vendor == "postgresql" else "SELECT sqlite_version()")
        (database,) = cursor.fetchone()
    return {
        "django-agentexec": __version__,
        "django": django.get_version(),
        "python": platform.python_version(),
        "redis-py": redis.__version__,
        "valkey": server.get("valkey_version", server.get("redis_version", "")),
        connection.vendor: str(database).split(" on ")[0],
        "processors": str(os.cpu_count()),
    }
