"""What a worker does with a claim whose start or end the database does not take."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from django.db import OperationalError

from django_agentexec import StaleAttempt, Status
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.transitions import Complete
from django_agentexec.models import Activity
from django_agentexec.queues import Claim, Outcome, get_queue
from django_agentexec.worker.executor import Execution
from django_agentexec.worker.options import WorkerOptions
from django_agentexec.worker.pipeline import DATABASE_REFUSED_DELAY
from django_agentexec.worker.worker import Worker
from tests.support.activity_rows import claim, start
from tests.testapp.agents import Keyed, keyed

pytestmark = pytest.mark.django_db(transaction=True)

AWAY = OperationalError("connection refused")


@pytest.fixture
def worker() -> Worker:
    return Worker(
        get_queue(), WorkerOptions(("default",), 5, name="w"), beat=lambda info: None, needs_recovery=lambda: None
    )


@pytest.fixture
def first() -> Claim:
    """The claim of an activity whose lock key others wait for."""
    keyed.enqueue_many([Keyed(key="a", number=number) for number in range(2)])
    (claimed,) = claim()
    return claimed


def given_back(worker: Worker) -> UUID | None:
    """Send the worker's acknowledgments, and return who can be claimed next."""
    claimed = get_queue().ack_and_claim("default", "w2", worker._claimer._acks, limit=5).claimed
    return claimed[0].agent_id if claimed else None


def test_a_worker_that_ends_gives_what_it_could_not_start_back_to_its_place(worker: Worker, first: Claim) -> None:
    worker._pipeline.is_draining = True

    worker._pipeline.started(first, AWAY)

    assert given_back(worker) == first.agent_id


def test_a_worker_that_ends_gives_what_it_could_not_end_back_to_its_place(worker: Worker, first: Claim) -> None:
    execution = Execution(
        first, start(first.agent_id, first.fence), worker._committer.submit, worker._pipeline._invoker
    )
    worker._pipeline.is_draining = True

    worker._pipeline.end_written(execution, Complete(agent_id=first.agent_id, fence=first.fence), AWAY)

    assert given_back(worker) == first.agent_id


def test_what_the_database_refuses_for_good_is_tried_later(worker: Worker, first: Claim) -> None:
    worker._pipeline.started(first, AWAY)

    (ack,) = worker._claimer._acks
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
    worker: Worker, first: Claim, counts: dict[str, int], status: Status
) -> None:
    # Each death had a start: the row counts them.
    Activity.objects.filter(agent_id=first.agent_id).update(crashes=counts.get("crashes", 0))
    worker._pipeline.claimed(replace(first, **counts))  # type: ignore[arg-type]

    write = worker._committer._writes.get_nowait()
    assert write is not None
    assert apply_one(write.operation).status == status


def test_what_is_claimed_when_a_worker_leaves_already_is_given_back_unstarted(worker: Worker, first: Claim) -> None:
    worker._pipeline.is_stopping = True

    worker._pipeline.claimed(first)

    assert given_back(worker) == first.agent_id


def test_what_a_worker_that_leaves_could_not_write_any_more_goes_back_to_its_place(
    worker: Worker, first: Claim
) -> None:
    execution = Execution(
        first, start(first.agent_id, first.fence), worker._committer.submit, worker._pipeline._invoker
    )
    worker._pipeline.is_draining = True

    worker._pipeline.end_written(execution, execution.release(), StaleAttempt("The worker has ended."))

    assert given_back(worker) == first.agent_id
