"""A process that slept between claim and start: what it claimed may be another's by now."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import pytest

from django_agentexec.queues import Claim
from tests.e2e.journal import Journal
from tests.support.activity_rows import claim, row
from tests.support.activity_rows import start as start_row
from tests.support.stepped_worker import SteppedWorker
from tests.testapp.agents import Work, locked_work, work

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def worker() -> SteppedWorker:
    return SteppedWorker()


def started(task: object, journal: Journal) -> tuple[Claim, UUID]:
    """Return a claim whose start is in the row."""
    agent_id = task.enqueue(Work(journal=journal.path, key="k")).agent_id  # type: ignore[attr-defined]
    (claimed,) = claim()
    start_row(agent_id, claimed.fence)
    return claimed, agent_id


def launch(worker: SteppedWorker, claimed: Claim, agent_id: UUID, *, extended: float) -> None:
    """Launch the handler of a claim whose lease was last extended then, and wait for its end."""
    worker.launch(claimed, row(agent_id), extended=extended)


def test_a_locked_activity_whose_lease_has_run_out_is_not_started(worker: SteppedWorker, journal: Journal) -> None:
    launch(worker, *started(locked_work, journal), extended=time.monotonic() - 3600)

    assert journal.names("start") == []


def test_without_a_lock_it_runs_since_the_row_takes_one_only(worker: SteppedWorker, journal: Journal) -> None:
    launch(worker, *started(work, journal), extended=time.monotonic() - 3600)

    assert len(journal.names("start")) == 1


def test_whose_lease_holds_is_started(worker: SteppedWorker, journal: Journal) -> None:
    launch(worker, *started(locked_work, journal), extended=time.monotonic())

    assert len(journal.names("start")) == 1
