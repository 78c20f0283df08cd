"""A claim whose start or end the database does not accept, in the worker that holds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.db import OperationalError

from django_agentexec import StaleAttempt, Status
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.transitions import Complete
from django_agentexec.models import Activity
from django_agentexec.queues import Claim, Outcome
from django_agentexec.worker.pipeline import DATABASE_REFUSED_DELAY
from tests.support.activity_rows import claim, start
from tests.support.stepped_worker import SteppedWorker
from tests.testapp.agents import Keyed, keyed

pytestmark = pytest.mark.django_db(transaction=True)

AWAY = OperationalError("connection refused")


@pytest.fixture
def worker() -> SteppedWorker:
    return SteppedWorker()


@pytest.fixture
def first() -> Claim:
    """The claim of an activity whose lock key others wait for."""
    keyed.enqueue_many([Keyed(key="a", number=number) for number in range(2)])
    (claimed,) = claim()
    return claimed


def test_a_worker_that_ends_returns_what_it_could_not_start_to_its_place(worker: SteppedWorker, first: Claim) -> None:
    worker.pipeline.is_draining = True

    worker.pipeline.started(first, AWAY)

    assert worker.next_claimed() == first.agent_id


def test_a_worker_that_ends_returns_what_it_could_not_end_to_its_place(worker: SteppedWorker, first: Claim) -> None:
    execution = worker.execution(first, start(first.agent_id, first.fence))
    worker.pipeline.is_draining = True

    worker.pipeline.end_written(execution, Complete(agent_id=first.agent_id, fence=first.fence), AWAY)

    assert worker.next_claimed() == first.agent_id


def test_what_the_database_refuses_for_good_is_tried_later(worker: SteppedWorker, first: Claim) -> None:
    worker.pipeline.started(first, AWAY)

    (ack,) = worker.acks
    assert (ack.outcome, ack.delay) == (Outcome.RETRY, DATABASE_REFUSED_DELAY)


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({"expired_leases": 5}, Status.ERROR),
        ({"crashes": 3}, Status.ERROR),
        ({"expired_leases": 4, "crashes": 2}, Status.RUNNING),
    ],
)
def test_deaths_and_ended_leases_have_limits_of_their_own(
    worker: SteppedWorker, first: Claim, counts: dict[str, int], status: Status
) -> None:
    # Each death had a start: the row counts them.
    Activity.objects.filter(agent_id=first.agent_id).update(crashes=counts.get("crashes", 0))
    worker.pipeline.claimed(replace(first, **counts))  # type: ignore[arg-type]

    assert apply_one(worker.next_write()).status == status


def test_what_is_claimed_by_a_stopping_worker_is_returned_unstarted(worker: SteppedWorker, first: Claim) -> None:
    worker.pipeline.is_stopping = True

    worker.pipeline.claimed(first)

    assert worker.next_claimed() == first.agent_id


def test_what_a_worker_that_leaves_could_not_write_any_more_goes_back_to_its_place(
    worker: SteppedWorker, first: Claim
) -> None:
    execution = worker.execution(first, start(first.agent_id, first.fence))
    worker.pipeline.is_draining = True

    worker.pipeline.end_written(execution, execution.release(), StaleAttempt("The worker has ended."))

    assert worker.next_claimed() == first.agent_id
