"""What surrounds the pool fails: the queue's server, the fork server, the process group's signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from django_agentexec import Status, activity
from django_agentexec.models import Activity
from django_agentexec.queues import get_queue
from tests.e2e.journal import Journal
from tests.support.activity_rows import statuses
from tests.support.pool_process import pool, run_burst, until
from tests.support.process_state import state_of
from tests.support.servers import Valkey
from tests.testapp.agents import Work, die, locked_work, work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def enqueue(journal: Journal, number: int, seconds: float) -> None:
    work.enqueue_many([Work(journal=journal.path, name=str(n), seconds=seconds) for n in range(number)])


def no_process_died() -> bool:
    return not Activity.objects.filter(crashes__gt=0).exists()


@contextmanager
def refusing() -> Iterator[None]:
    """Let the server refuse every script, as one does whose passwords or rights are being changed."""
    client = get_queue().client  # type: ignore[attr-defined]
    client.execute_command("ACL", "SETUSER", "default", "-@scripting")
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")


def test_a_server_that_refuses_commands_is_waited_for(journal: Journal) -> None:
    enqueue(journal, 30, 0.3)
    with pool("--workers", "1", "--concurrency", "5", LEASE=1.5) as process:
        until(lambda: journal.names("start"), "a start")
        with refusing():
            until(lambda: "refuses a command" in process.output, "the refusal")
        until(lambda: statuses() == {Status.COMPLETE: 30}, "all complete")
        assert len({found.pid for found in journal.events()}) == 1


def test_a_killed_server_is_waited_for_and_costs_nothing(journal: Journal, valkey: Valkey) -> None:
    enqueue(journal, 30, 0.3)
    with pool("--workers", "2", "--concurrency", "5", LEASE=3, RECONCILE_INTERVAL=1):
        until(lambda: len(journal.names("end")) >= 3, "the first ends")
        valkey.kill()
        until(lambda: len(journal.names("end")) == len(journal.names("start")), "the end of what ran")
        valkey.start()
        until(lambda: statuses() == {Status.COMPLETE: 30}, "all complete")

    assert no_process_died()
    assert len(journal.names("end")) == 30


def test_a_server_that_hangs_for_longer_than_a_lease_charges_nobody_a_crash(journal: Journal, valkey: Valkey) -> None:
    enqueue(journal, 12, 4.0)
    with pool("--workers", "2", "--concurrency", "3", LEASE=1.5, REDIS_TIMEOUT=0.5):
        until(lambda: len(journal.names("start")) == 6, "full slots")
        valkey.signal(signal.SIGSTOP)
        try:
            until(lambda: len(journal.names("end")) == 6, "the end of what ran")
        finally:
            valkey.signal(signal.SIGCONT)
        until(lambda: statuses() == {Status.COMPLETE: 12}, "all complete")

    assert no_process_died()


def test_what_is_canceled_while_the_server_is_away_is_stopped(journal: Journal, valkey: Valkey) -> None:
    first = locked_work.enqueue(Work(journal=journal.path, name="k-1", key="k", seconds=600))
    locked_work.enqueue(Work(journal=journal.path, name="k-2", key="k"))
    with pool("--workers", "1", LEASE=9, RECONCILE_INTERVAL=0.5, GRACE_PERIOD=0) as process:
        until(lambda: journal.names("start"), "the start")
        valkey.kill()
        try:
            activity.cancel(first.agent_id)
        finally:
            valkey.start()
        until(lambda: journal.names("end") == ["k-2"], "the next one of its key")

    assert "whose rows have ended" in process.output


def test_a_signal_to_every_process_leaves_the_grace_period(journal: Journal) -> None:
    enqueue(journal, 1, 1.5)
    with pool("--workers", "1") as process:
        worker = until(lambda: journal.pid_of("0"), "the start")
        process.send(signal.SIGTERM)
        for _ in range(3):
            os.kill(worker, signal.SIGTERM)
        assert process.wait() == 0

    assert journal.names("end") == ["0"]


def test_what_runs_when_its_pool_is_killed_gets_the_grace_period(journal: Journal) -> None:
    enqueue(journal, 1, 2.5)
    with pool("--workers", "1") as process:
        until(lambda: journal.pid_of("0"), "the start")
        process.send(signal.SIGKILL)
        process.wait()
        until(lambda: statuses() == {Status.COMPLETE: 1}, "the end")

    assert journal.names("end") == ["0"]


def test_a_killed_fork_server_is_replaced(journal: Journal) -> None:
    enqueue(journal, 20, 0.2)
    with pool("--workers", "1", "--concurrency", "2"):
        worker = until(lambda: journal.events("start")[-1:], "a start")[0].pid
        os.kill(state_of(worker)[1], signal.SIGKILL)
        until(lambda: statuses() == {Status.COMPLETE: 20}, "all complete")

    assert len({found.pid for found in journal.events("end")}) > 1


def test_a_burst_replaces_processes_until_nothing_is_left(journal: Journal) -> None:
    enqueue(journal, 7, 0.0)

    run_burst("--workers", "2", "--concurrency", "5", "--max-tasks-per-child", "2")

    assert statuses() == {Status.COMPLETE: 7}


def test_a_burst_outlives_its_workers_and_ends_behind_the_quarantine(journal: Journal) -> None:
    poison = die.enqueue(Work(journal=journal.path, name="poison"))
    locked_work.enqueue(Work(journal=journal.path, name="k-1", key="k", seconds=1.0))
    locked_work.enqueue(Work(journal=journal.path, name="k-2", key="k"))
    enqueue(journal, 5, 0.0)

    run_burst("--workers", "1", "--concurrency", "2", MAX_CRASHES=2)

    assert Activity.objects.get(pk=poison.agent_id).status == Status.ERROR
    assert statuses() == {Status.ERROR: 1, Status.COMPLETE: 7}


def test_a_burst_waits_for_the_end_of_a_pause(journal: Journal) -> None:
    enqueue(journal, 2, 0.0)
    row = Activity.objects.order_by("agent_id").first()
    assert row is not None
    # A worker that finds running rows and an empty server waits for others to restore their claims.
    Activity.objects.filter(pk=row.pk).update(status=Status.RUNNING)

    run_burst("--workers", "1")

    assert statuses() == {Status.COMPLETE: 2}
