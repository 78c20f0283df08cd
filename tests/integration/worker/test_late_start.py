"""A process that slept between claim and start: what it claimed may be another's by now."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from uuid import UUID

import pytest

from django_agentexec.queues import Claim, get_queue
from django_agentexec.worker.claimer import HeldClaim
from django_agentexec.worker.options import WorkerOptions
from django_agentexec.worker.worker import Worker
from tests.e2e.journal import Journal
from tests.support.activity_rows import claim, row
from tests.support.activity_rows import start as start_row
from tests.testapp.agents import Work, locked_work, work

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def worker() -> Worker:
    return Worker(
        get_queue(), WorkerOptions(("default",), 5, name="w"), beat=lambda info: None, needs_recovery=lambda: None
    )


def started(task: object, journal: Journal) -> tuple[Claim, UUID]:
    """Return a claim whose start is in the row."""
    agent_id = task.enqueue(Work(journal=journal.path, key="k")).agent_id  # type: ignore[attr-defined]
    (claimed,) = claim()
    start_row(agent_id, claimed.fence)
    return claimed, agent_id


def launch(worker: Worker, claimed: Claim, agent_id: UUID, *, extended: float) -> None:
    """Have the handler of a claim started whose lease was last extended then."""
    activity = row(agent_id)

    async def run() -> None:
        worker._pipeline.bind(asyncio.get_running_loop())
        worker._claimer.held[agent_id] = HeldClaim(claimed, extended)
        worker._pipeline.launch(claimed, activity)
        task = worker._pipeline._executions[agent_id].task
        assert task is not None
        await task

    asyncio.run(run())


def test_a_locked_activity_whose_lease_has_run_out_is_not_started(worker: Worker, journal: Journal) -> None:
    launch(worker, *started(locked_work, journal), extended=time.monotonic() - 3600)

    assert journal.names("start") == []


def test_without_a_lock_it_runs_since_the_row_takes_one_only(worker: Worker, journal: Journal) -> None:
    launch(worker, *started(work, journal), extended=time.monotonic() - 3600)

    assert len(journal.names("start")) == 1


def test_whose_lease_holds_is_started(worker: Worker, journal: Journal) -> None:
    launch(worker, *started(locked_work, journal), extended=time.monotonic())

    assert len(journal.names("start")) == 1
