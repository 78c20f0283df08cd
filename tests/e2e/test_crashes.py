"""Kill anything on the way: what was enqueued completes, and its row is written once."""

from __future__ import annotations

import os
import signal

import pytest

from django_agentexec import Status, get_result
from django_agentexec.models import Activity, ActivityLog
from django_agentexec.queues import get_queue
from tests.e2e.journal import Journal
from tests.support.activity_rows import statuses
from tests.support.pool_process import pool, run_burst, until
from tests.testapp.agents import Work, block, die, exit_in_a_task, locked_work, work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def running(journal: Journal) -> set[str]:
    """Return the names of what has started and not ended."""
    return set(journal.names("start")) - set(journal.names("end"))


def completed_once() -> bool:
    """Return whether no activity has two log lines of its completion."""
    lines = ActivityLog.objects.filter(status=Status.COMPLETE).values_list("activity_id", flat=True)
    return len(lines) == len(set(lines))


def test_killed_workers_lose_nothing_and_complete_nothing_twice(journal: Journal) -> None:
    work.enqueue_many([Work(journal=journal.path, name=str(n), seconds=0.05) for n in range(200)])
    with pool("--workers", "2", "--concurrency", "10"):
        for kill in range(3):
            victim = until(lambda: journal.events("start")[-1:], "a start")[0].pid
            os.kill(victim, signal.SIGKILL)
            enough = 40 * (kill + 1)
            until(lambda enough=enough: len(journal.events("end")) >= enough, "progress after the kill")
        until(lambda: statuses() == {Status.COMPLETE: 200}, "all complete")

    assert set(journal.names("end")) == {str(n) for n in range(200)}
    assert completed_once()


def test_the_work_of_a_killed_worker_starts_again_before_its_lease_ends(journal: Journal) -> None:
    handle = work.enqueue(Work(journal=journal.path, name="a", seconds=1.0))
    with pool("--workers", "1", LEASE=300):
        victim = until(lambda: journal.pid_of("a"), "the start")
        os.kill(victim, signal.SIGKILL)
        get_result(handle, timeout=60)

    activity = Activity.objects.get()
    assert (activity.status, activity.crashes, activity.attempt) == (Status.COMPLETE, 1, 1)
    assert len(journal.names("start")) == 2


def test_the_work_of_a_killed_pool_is_taken_over_when_its_lease_ends(journal: Journal) -> None:
    handle = work.enqueue(Work(journal=journal.path, name="a", seconds=30))
    with pool("--workers", "1", LEASE=1.5) as first:
        worker = until(lambda: journal.pid_of("a"), "the start")
        os.kill(worker, signal.SIGSTOP)
        first.send(signal.SIGKILL)
        first.wait()
        with pool("--workers", "1", LEASE=1.5, GRACE_PERIOD=0):
            until(lambda: len(journal.names("start")) == 2, "the second start")
            handle_row = Activity.objects.get(pk=handle.agent_id)
            os.kill(worker, signal.SIGKILL)
            assert handle_row.worker.split(":")[1] != str(first.pid)


@pytest.mark.slow
def test_a_zombie_changes_nothing(journal: Journal) -> None:
    handle = locked_work.enqueue(Work(journal=journal.path, name="a", key="k", seconds=2))
    with pool("--workers", "1", LEASE=1.5) as first:
        zombie = until(lambda: journal.pid_of("a"), "the start")
        os.kill(zombie, signal.SIGSTOP)
        first.send(signal.SIGSTOP)
        with pool("--workers", "1", LEASE=1.5):
            get_result(handle, timeout=60)
            after = Activity.objects.get(pk=handle.agent_id)
            os.kill(zombie, signal.SIGCONT)
            first.send(signal.SIGCONT)
            first.stop()

    row = Activity.objects.get(pk=handle.agent_id)
    assert (row.status, row.fence, row.worker, row.updated_at) == (
        Status.COMPLETE,
        after.fence,
        after.worker,
        after.updated_at,
    )
    assert completed_once()


def test_a_poisoned_activity_ends_in_error_and_its_neighbours_complete(journal: Journal) -> None:
    poison = die.enqueue(Work(journal=journal.path, name="poison"))
    work.enqueue_many([Work(journal=journal.path, name=str(n), seconds=0.3) for n in range(30)])
    with pool("--workers", "1", "--concurrency", "20"):
        until(lambda: statuses() == {Status.ERROR: 1, Status.COMPLETE: 30}, "all ended")

    row = Activity.objects.get(pk=poison.agent_id)
    assert row.error == "The worker process died 3 times while running this activity."
    assert journal.names("start").count("poison") == 3
    # From the first crash on it ran alone: no neighbour was charged with a second one.
    assert max(Activity.objects.filter(agent_type="work").values_list("crashes", flat=True)) <= 1


def test_an_exit_that_escapes_from_a_task_of_the_handler_is_a_crash(journal: Journal) -> None:
    handle = exit_in_a_task.enqueue(Work(journal=journal.path, name="leaver"))
    with pool("--workers", "1", MAX_CRASHES=2):
        until(lambda: Activity.objects.get(pk=handle.agent_id).status == Status.ERROR, "the verdict")

    assert journal.names("start") == ["leaver"] * 2


def test_a_blocked_event_loop_is_killed_and_keeps_its_lease_until_then(journal: Journal) -> None:
    handle = block.enqueue(Work(journal=journal.path, name="blocker", seconds=60))
    with pool("--workers", "1", STUCK_TIMEOUT=2, LEASE=1.0, MAX_CRASHES=1) as process:
        until(lambda: Activity.objects.get(pk=handle.agent_id).status == Status.ERROR, "the verdict")

    assert "has been stuck for" in process.output
    assert journal.names("start") == ["blocker"]


@pytest.mark.slow
def test_a_flushed_redis_loses_nothing_and_breaks_no_lock(journal: Journal) -> None:
    keys = [f"k{n % 100}" for n in range(1020)]
    locked_work.enqueue_many(
        [Work(journal=journal.path, name=f"{key}-{n}", key=key, seconds=0.1) for n, key in enumerate(keys)]
    )
    # With the default lease and intervals.
    with pool("--workers", "2", "--concurrency", "10"):
        until(lambda: len(running(journal)) > 10, "both processes at work")
        get_queue().client.flushall()  # type: ignore[attr-defined]
        until(lambda: statuses() == {Status.COMPLETE: 1020}, "all complete", timeout=60)

    assert_one_at_a_time(journal)
    assert completed_once()


def test_lock_keys_hold_across_processes_and_keep_the_order(journal: Journal) -> None:
    locked_work.enqueue_many(
        [Work(journal=journal.path, name=f"k{n % 4}-{n:03}", key=f"k{n % 4}", seconds=0.01) for n in range(80)]
    )

    run_burst("--workers", "2", "--concurrency", "2")

    assert_one_at_a_time(journal)
    assert len({found.pid for found in journal.events()}) == 2
    for key in range(4):
        started = [name for name in journal.names("start") if name.startswith(f"k{key}-")]
        assert started == sorted(started)
        assert len(started) == 20


def assert_one_at_a_time(journal: Journal) -> None:
    """Check that between a start and its end nothing else of its key has started."""
    running: dict[str, str] = {}
    for found in journal.events():
        key = found.name.split("-")[0]
        if found.event == "start":
            assert key not in running, f"{found.name} started while {running[key]} ran"
            running[key] = found.name
        else:
            assert running.pop(key) == found.name


def test_a_worker_that_was_out_of_reach_is_charged_no_crash(journal: Journal) -> None:
    """Its lease has ended and another pool has taken over; one charged crash would end the activity in an error."""
    options = {"LEASE": 1.5, "MAX_CRASHES": 1}
    handle = locked_work.enqueue(Work(journal=journal.path, name="a", key="k", seconds=3))
    with pool("--workers", "1", **options) as first:
        frozen = until(lambda: journal.pid_of("a"), "the start")
        os.kill(frozen, signal.SIGSTOP)
        first.send(signal.SIGSTOP)
        with pool("--workers", "1", **options):
            until(lambda: len(journal.names("start")) == 2, "the second start")
            os.kill(frozen, signal.SIGCONT)
            first.send(signal.SIGCONT)
            get_result(handle, timeout=60)

    row = Activity.objects.get(pk=handle.agent_id)
    assert (row.status, row.crashes) == (Status.COMPLETE, 0)
