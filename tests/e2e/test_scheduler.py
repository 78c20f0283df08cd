"""The scheduler as its operator meets it: in real pools, of which some die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from django_agentexec import Status
from django_agentexec.conf import conf
from django_agentexec.models import Activity
from django_agentexec.queues import get_queue
from django_agentexec.schedules.models import AgentSchedule, ScheduleRun
from tests.e2e.journal import Journal
from tests.support.pool_process import PoolProcess, environment, pool, refused, until
from tests.support.schedule_builders import interval

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

SECONDS = int(os.environ.get("SCHEDULER_SECONDS", "15"))
POOLS = 4


def each_second(journal: Journal, **fields: object) -> AgentSchedule:
    return AgentSchedule.objects.create(
        name="each second",
        task="work",
        context={"journal": journal.path, "name": "tick"},
        interval=interval(1),
        **fields,
    )


def leader() -> str:
    """The name of the pool whose scheduler leads."""
    found: bytes | None = get_queue().client.get(f"{conf.KEY_PREFIX}:lead:scheduler")  # type: ignore[attr-defined]
    return found.decode() if found else ""


def test_each_due_time_runs_once_in_many_pools_of_which_one_dies(journal: Journal) -> None:
    with ExitStack() as pools:

        def start() -> PoolProcess:
            return pools.enter_context(pool("--workers", "1"))

        running = [start() for _ in range(POOLS)]
        until(lambda: len(get_queue().workers()) == POOLS and leader(), "all pools")
        begin = timezone.now().replace(microsecond=0) + timedelta(seconds=7)  # noticed by then
        schedule = each_second(journal, start_at=begin, expires_at=begin + timedelta(seconds=SECONDS))

        until(lambda: schedule.runs.count() >= SECONDS // 3, "the first third")
        doomed = next(process for process in running if leader().split(":")[1] == str(process.pid))
        doomed.send(signal.SIGKILL)
        doomed.wait()
        until(lambda: schedule.runs.count() >= 2 * SECONDS // 3, "the second third")
        start()
        until(lambda: timezone.now() > begin + timedelta(seconds=SECONDS + 2), "the end", timeout=SECONDS + 60)
        until(lambda: not Activity.objects.exclude(status=Status.COMPLETE).exists(), "all runs")

    due = [begin + timedelta(seconds=second) for second in range(SECONDS)]
    assert list(ScheduleRun.objects.order_by("due_at").values_list("due_at", flat=True)) == due
    assert Activity.objects.count() == SECONDS
    assert len({run.activity_id for run in ScheduleRun.objects.all()}) == SECONDS
    assert len({event.agent_id for event in journal.events("start")}) == SECONDS
    late = max(run.created_at - run.due_at for run in ScheduleRun.objects.all())
    print(f"{SECONDS} due times, {Activity.objects.count()} activities, the latest {late.total_seconds():.2f} s late")


def test_a_scheduler_alone_starts_no_worker(journal: Journal) -> None:
    schedule = each_second(journal)
    with pool("--scheduler-only") as process:
        until(lambda: schedule.runs.count() >= 2, "two runs")
        assert get_queue().workers() == []
        assert process.stop() == 0

    assert set(Activity.objects.values_list("status", flat=True)) == {Status.QUEUED}
    assert get_queue().stats("default").ready == Activity.objects.count()


def test_a_pool_may_leave_schedules_to_others(journal: Journal) -> None:
    schedule = each_second(journal)
    with pool("--no-scheduler", "--workers", "1"):
        until(get_queue().workers, "the worker")
        until(lambda: timezone.now() > schedule.next_run_at + timedelta(seconds=2), "two due times")

        assert not schedule.runs.exists()


def test_a_change_is_noticed_within_the_interval(journal: Journal) -> None:
    with pool("--scheduler-only", SCHEDULER_INTERVAL=0.5):
        until(leader, "the scheduler")
        schedule = each_second(journal)
        until(schedule.runs.exists, "its first run", timeout=5)


def test_a_pool_whose_schedules_have_no_tables_asks_for_migrate(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3")}
    env = {**environment(), "AGENTEXEC_TEST_DATABASE": json.dumps(database)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments], env=env, capture_output=True, text=True, timeout=60
        )

    assert run("migrate", "agentexec").returncode == 0
    refused = run("runagentworkers")

    assert refused.returncode == 1
    assert "has unapplied migrations of agentexec_schedules. Run manage.py migrate first." in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--scheduler-only", "--no-scheduler"], "not allowed with"),
        (["--scheduler-only", "--burst"], "omit --burst"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(arguments: list[str], complaint: str) -> None:
    assert complaint in refused(*arguments)
