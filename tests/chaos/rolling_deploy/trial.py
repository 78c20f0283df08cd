"""The trial: the stages of a rolling deploy, with kills of workers of both releases, and the figures of its report.

1. Pools and producers of the old release work on the old schema.
2. The new release migrates meanwhile.
3. Pools and producers of the new release start beside them; both are killed in turn.
4. The old pools end with SIGTERM; the old producers continue, as web servers that are replaced last.
5. All producers end, everything is drained and judged.
6. The new release migrates back; the old release reads every row, and works.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command

from tests.chaos.effects import EFFECTS
from tests.chaos.faults import Form
from tests.chaos.history import ENDS
from tests.chaos.observer import Observer, report
from tests.chaos.rolling_deploy import REPAIRED
from tests.chaos.rolling_deploy.release import Release
from tests.chaos.stage import ENDING, MARK, Pool, Stage, send

POLL = 0.1  # seconds
KILL_PAUSES = (0.7, 2.5)  # seconds between two kills
OLD_SHARE, MIXED_SHARE = 0.2, 0.75  # of the activities, when the migration begins and when the old pools end
NO_LIMIT = 1 << 30  # of the activities of a producer, of which one in so many is poison in a chaos run


@dataclass(frozen=True)
class Plan:
    """The size of a trial."""

    database: str
    activities: int
    kills: int
    seed: int
    commit: str
    pools: int = 2
    """Pools, and producers, of each release."""
    rate: float = 10.0
    """Activities per second of one producer."""
    patience: float = 180.0
    """Seconds that a stage may take beyond its planned time."""


@dataclass
class Result:
    """The figures and findings of a trial."""

    plan: Plan
    figures: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, list[str]] = field(default_factory=dict)
    folder: str = ""
    """The folder of the logs, if there are findings."""

    @property
    def is_clean(self) -> bool:
        """Whether there are no findings."""
        return not any(self.findings.values())

    def as_json(self) -> str:
        """Return the result as JSON."""
        return json.dumps({**asdict(self), "is_clean": self.is_clean}, indent=2)


class ReleasePool(Pool):
    """A pool of one release."""

    def __init__(self, stage: Stage, number: int, release: Release) -> None:
        super().__init__(stage, number, {})
        self.release = release

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.release.environment()}


class DeployStage(Stage):
    """The servers, and the pools and producers of both releases."""

    def __init__(self, plan: Plan, folder: Path, releases: list[Release]) -> None:
        super().__init__(Form("rolling", plan.database, plan.activities, pools=0, producers=0), plan.seed, folder)
        self.plan, self.releases = plan, releases
        self.numbers = {
            release.name: range(place * plan.pools, (place + 1) * plan.pools) for place, release in enumerate(releases)
        }
        self.pools_of: dict[str, list[ReleasePool]] = {
            release.name: [ReleasePool(self, number, release) for number in self.numbers[release.name]]
            for release in releases
        }
        self.producers_of: dict[str, list[subprocess.Popen[bytes]]] = {release.name: [] for release in releases}
        (folder / "repaired").mkdir()

    def environment(self, proxies: Any) -> dict[str, str]:
        return {
            **super().environment(proxies or None),
            "DJANGO_SETTINGS_MODULE": "tests.chaos.rolling_deploy.settings",
            EFFECTS: str(self.folder / "effects.log"),
            REPAIRED: str(self.folder / "repaired"),
        }

    def start_release(self, release: Release) -> None:
        """Start the pools and producers of a release."""
        for pool in self.pools_of[release.name]:
            pool.start(0.0)
            self.pools.append(pool)
        for number in self.numbers[release.name]:
            arguments = map(str, (number, self.plan.seed, self.plan.rate, NO_LIMIT))
            with (self.folder / f"producer-{number}.log").open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.chaos.rolling_deploy.producer", *arguments],
                    env={**self.environment(None), **release.environment(), "CHAOS_POOL": str(number)},
                    stderr=output,
                )
            self.producers.append(process)
            self.producers_of[release.name].append(process)

    def run(self, release: Release, *arguments: str) -> str:
        """Run a command of this release, and return its output. Raises `RuntimeError` with the output if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env={**self.environment(None), **release.environment()},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} of the {release.name} release failed: {done.stderr}")
        return done.stdout

    def read(self, release: Release, question: str) -> Any:
        """Return the answer of a reader of this release."""
        return json.loads(self.run(release, "tests.chaos.rolling_deploy.reader", question))


class Trial:
    """One rolling deploy."""

    def __init__(self, plan: Plan, folder: Path, old: Release, new: Release) -> None:
        self.plan, self.folder, self.old, self.new = plan, folder, old, new
        self.result = Result(plan, folder=str(folder))
        self.observer = Observer(folder)
        self.stage = DeployStage(plan, folder, [old, new])
        self.random = random.Random(f"rolling-{plan.seed}")
        self.killed: Counter[str] = Counter()
        self.problems: list[str] = []
        self.exit_codes: dict[str, list[int]] = {}
        self._next_kill = 0.0
        self._began = time.monotonic()

    def go(self) -> Result:
        """Run all stages."""
        with self.stage:
            try:
                self.old_leaves = self._prepare()
                self._time("old release only", self._old_only)
                self._time("migration under load", self._migrate)
                self._time("both releases", self._both)
                self._time("new pools only", self._new_pools_only)
                self._time("drain", self._drain)
                self._judge()
                self._time("way back", self._back)
            finally:
                self._end_everything()
        return self.result

    def _prepare(self) -> dict[str, str]:
        """Create the old schema with the old release, and return its last migrations."""
        os.environ.update({name: value for name, value in self.stage.environment(None).items() if name != MARK})
        self.stage.run(self.old, "django", "migrate", "--verbosity", "0")
        leaves: dict[str, str] = self.stage.read(self.old, "leaves")
        return leaves

    def _old_only(self) -> None:
        self.stage.start_release(self.old)
        self._work_until(
            lambda: self._enqueued() >= OLD_SHARE * self.plan.activities and self._all_run(self.old), "old only"
        )

    def _migrate(self) -> None:
        """Migrate in a separate process while the old release works and one of its workers is killed."""
        command = [sys.executable, "-m", "django", "migrate", "--verbosity", "1"]
        environment = {**self.stage.environment(None), **self.new.environment()}
        with (self.folder / "migrate.log").open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self._kill("old")
        self._work_until(lambda: process.poll() is not None, "migration")
        printed = (self.folder / "migrate.log").read_text()
        if process.returncode:
            raise RuntimeError(f"The migration failed: {printed}")
        self.result.figures["migrations"] = printed.count("... OK")

    def _both(self) -> None:
        self.stage.start_release(self.new)
        self._work_until(lambda: self._all_run(self.new), "start of the new release")

        def is_done() -> bool:
            self._kill_next()
            return (
                self._enqueued() >= MIXED_SHARE * self.plan.activities
                and self.killed.total() >= self.plan.kills
                and all(self.killed[release] for release in ("old", "new")) | (self.plan.kills < 2)
            )

        self._work_until(is_done, "both releases")

    def _new_pools_only(self) -> None:
        """End the old pools while the producers of both releases continue."""
        for pool in self.stage.pools_of["old"]:
            self.stage.pools.remove(pool)
            pool.stop()
        self.exit_codes["the old pools"] = [code for pool in self.stage.pools_of["old"] for code in pool.codes]
        self._work_until(lambda: self._enqueued() >= self.plan.activities, "new pools only")

    def _drain(self) -> None:
        for name, producers in self.stage.producers_of.items():
            for producer in producers:
                producer.terminate()
            self.exit_codes[f"the {name} producers"] = [producer.wait(ENDING) for producer in producers]
        self.stage.producers.clear()
        django.setup()
        from django_agentexec.models import Activity
        from django_agentexec.schedules.models import AgentSchedule

        AgentSchedule.objects.update(enabled=False, next_run_at=None, timing="")
        self._work_until(lambda: not Activity.objects.active().exists(), "drain")
        for pool in self.stage.pools_of["new"]:
            pool.stop()
        self.exit_codes["the new pools"] = [code for pool in self.stage.pools_of["new"] for code in pool.codes]

    def _judge(self) -> None:
        from tests.chaos.rolling_deploy.evidence import collect, figures
        from tests.chaos.rolling_deploy.judgment import both_releases_work, judge

        self.observer.stop()
        deploy = collect(self.stage, self.observer.events(), self.exit_codes)
        self.result.findings = {
            **judge(deploy),
            "both releases work": list(both_releases_work(deploy, self.stage.numbers, self.stage.numbers)),
            "the trial itself": self.problems,
        }
        self.result.figures |= figures(deploy, self.stage.numbers)
        self.result.figures["kills"] = dict(self.killed)

    def _back(self) -> None:
        """Migrate to the old release's last migrations; compare what both releases read, then run activities."""
        from tests.chaos.rolling_deploy.reader import enqueue, rows

        self.observer = Observer(_made(self.folder / "back"))
        enqueue("before")  # by the new release, for the old release
        before = json.loads(json.dumps(rows()))
        for app, leaf in sorted(self.old_leaves.items(), reverse=True):
            call_command("migrate", app, leaf, verbosity=0)
        after = self.stage.read(self.old, "rows")
        found = list(differences(before, after, "after the way back"))
        worked = self.stage.read(self.old, "work")
        ended = {key: row for key, row in after.items() if row[1] != "queued"}
        found += differences(ended, {key: worked.get(key) for key in ended}, "after further work")
        added = {key: row for key, row in worked.items() if key not in ended}
        found += [f"{key} is {row[:4]} after the way back" for key, row in added.items() if row[1] != "complete"]
        call_command("migrate", verbosity=0)
        found += differences(worked, json.loads(json.dumps(rows())), "after the second migration")
        self.result.findings["the way back keeps every row"] = found
        self.result.figures["rows compared after the way back"] = len(before)
        self.result.figures["activities of the old release after the way back"] = len(added)

    # Parts of the stages

    def _work_until(self, is_done: Callable[[], bool], stage: str) -> None:
        limit = time.monotonic() + self.plan.patience + self.plan.activities / self.plan.rate
        while not is_done():
            if time.monotonic() > limit:
                raise RuntimeError(f"The stage {stage!r} did not end in time: {self.observer.counts()}.")
            for pool in self.stage.pools:
                if pool.process is not None and pool.process.poll() is not None:
                    raise RuntimeError(f"Pool {pool.number} has ended: {pool.output()[-3000:]}")
            for name, producers in self.stage.producers_of.items():
                if self.stage.producers and any(producer.poll() is not None for producer in producers):
                    raise RuntimeError(f"A producer of the {name} release has ended; see {self.folder}.")
            time.sleep(POLL)

    def _enqueued(self) -> int:
        return self.observer.counts()["enqueued"]

    def _all_run(self, release: Release) -> bool:
        """Return whether every pool of the release has executed a handler."""
        started = {event.pool for event in self.observer.events() if event.kind == "start"}
        return set(self.stage.numbers[release.name]) <= started

    def _kill_next(self) -> None:
        """Kill a worker of the release with fewer kills, if the next kill is due."""
        if time.monotonic() >= self._next_kill and self.killed.total() < self.plan.kills:
            self._kill(min(("new", "old"), key=lambda name: self.killed[name]))
            self._next_kill = time.monotonic() + self.random.uniform(*KILL_PAUSES)

    def _kill(self, release: str) -> None:
        if self.killed.total() >= self.plan.kills:
            return
        pids = {pid for pool in self.stage.pools_of[release] for pid in pool.workers()}
        busy = self._busy()
        at = time.monotonic()
        if pids and send(pid := max(sorted(pids), key=lambda pid: busy[pid]), signal.SIGKILL):
            self.killed[release] += 1
            detail = {"kind": "kill_worker", "pid": pid, "until": time.monotonic()}
            report("fault", at=at, detail=json.dumps(detail))

    def _busy(self) -> Counter[int]:
        """Return the number of handlers that each process has begun and not ended."""
        running: Counter[int] = Counter()
        for event in self.observer.events():
            running[event.pid] += (event.kind == "start") - (event.kind in ENDS)
        return running

    def _time(self, what: str, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        seconds = round(time.monotonic() - began, 1)
        self.result.figures.setdefault("seconds", {})[what] = seconds
        print(f"{time.monotonic() - self._began:6.0f} s: {what} took {seconds} s", flush=True)

    def _end_everything(self) -> None:
        self.observer.stop()
        self.stage.pools = [pool for pools in self.stage.pools_of.values() for pool in pools]
        self.stage.producers = [process for group in self.stage.producers_of.values() for process in group]
        self.stage.kill_all()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def differences(before: dict[str, Any], after: dict[str, Any], when: str) -> Iterator[str]:
    """Yield the rows that differ, by their ids."""
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key}: {before.get(key)} is {after.get(key)} {when}"
