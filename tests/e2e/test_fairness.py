"""Limits and pauses in real pools: kills, a flushed Redis, restarts."""

from __future__ import annotations

import os
import signal

import pytest

from django_agentexec import Status, concurrency
from django_agentexec.models import Activity, ConcurrencyLimit
from django_agentexec.queues import get_queue
from tests.e2e.journal import Journal
from tests.support.pool_process import pool, until
from tests.testapp.agents import Work, shared_work, work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def most_at_once(journal: Journal) -> int:
    """Return the largest number of handlers that ran at the same time; a killed process has ended its handlers."""
    running: dict[str, int] = {}
    most = 0
    for event in journal.events():
        if event.event == "start":
            running[event.agent_id] = event.pid
        elif event.event == "end":
            running.pop(event.agent_id, None)
        else:
            running = {agent_id: pid for agent_id, pid in running.items() if str(pid) != event.name}
        most = max(most, len(running))
    return most


def is_complete(count: int) -> bool:
    return Activity.objects.filter(status=Status.COMPLETE).count() == count


def test_a_limit_holds_over_processes_and_a_killed_worker_frees_its_slots(journal: Journal) -> None:
    shared_work.enqueue_many([Work(journal=journal.path, name=str(n), key=str(n % 3), seconds=0.3) for n in range(10)])
    with pool("--workers", "3", "--concurrency", "4"):
        until(lambda: len(journal.names("start")) >= 2, "two starts")
        victim = journal.events("start")[-1].pid
        os.kill(victim, signal.SIGKILL)
        journal.note("kill", str(victim))
        until(lambda: is_complete(10), "all ends")

    assert most_at_once(journal) == 2


def test_a_pause_survives_a_flushed_redis_and_a_restart(journal: Journal) -> None:
    running = work.enqueue(Work(journal=journal.path, name="running", seconds=1.0))
    with pool("--workers", "1"):
        until(lambda: journal.pid_of("running"), "the start")
        concurrency.pause("task", "work")
        paused = work.enqueue(Work(journal=journal.path, name="paused"))
        until(
            lambda: Activity.objects.get(pk=running.agent_id).status == Status.COMPLETE,
            "the end of the running activity",
        )
        get_queue().client.flushall()  # type: ignore[attr-defined]  # of Redis
        others = shared_work.enqueue_many([Work(journal=journal.path, name=f"other {n}", key="z") for n in range(3)])
        until(lambda: is_complete(1 + len(others)), "the others")

    with pool("--workers", "1"):
        last = shared_work.enqueue(Work(journal=journal.path, name="last", key="z"))
        until(lambda: Activity.objects.get(pk=last.agent_id).status == Status.COMPLETE, "the last of the others")
        assert Activity.objects.get(pk=paused.agent_id).status == Status.QUEUED
        assert "paused" not in journal.names("start")
        concurrency.resume("task", "work")
        until(lambda: journal.pid_of("paused"), "the start after the pause")


def test_a_row_changes_the_limit_of_running_workers(journal: Journal) -> None:
    ConcurrencyLimit.objects.create(scope="task", name="shared_work", maximum=1)
    shared_work.enqueue_many([Work(journal=journal.path, name=str(n), key=str(n), seconds=0.1) for n in range(4)])
    with pool("--workers", "2"):
        until(lambda: is_complete(4), "all ends")
        assert most_at_once(journal) == 1

        ConcurrencyLimit.objects.get().delete()
        shared_work.enqueue_many([Work(journal=journal.path, name=str(n), key=str(n), seconds=0.5) for n in range(4)])
        until(lambda: is_complete(8), "all ends")

    assert most_at_once(journal) == 2
