"""What becomes of children when their parent ends, and of the parent: cancel, failure, retry."""

from __future__ import annotations

import pytest

from django_agentexec import activity, task
from django_agentexec.activity.operations import Complete, Fail
from django_agentexec.activity.writer import apply_one
from django_agentexec.models import Activity, Status
from django_agentexec.queues import Ack, Outcome, get_queue
from django_agentexec.testing import drain
from django_agentexec.worker.reconciler import reconcile
from tests.integration.family import (
    FAILING,
    RUNS,
    Companies,
    Company,
    attempt_of,
    claimed_parent,
    defined,
    discover,
    parent_of,
    park,
    running_parent,
)
from tests.rows import claimed_ids, row, start

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]


def test_a_cancel_takes_the_whole_family() -> None:
    attempt = running_parent()
    child = attempt.spawn("discover", Companies())
    start(child.agent_id)
    grandchild = attempt_of(child.agent_id).spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    activity.cancel(attempt.agent_id)

    assert [row(one.agent_id).status for one in (child, grandchild)] == [Status.CANCELED] * 2
    assert grandchild.agent_id not in claimed_ids()


def test_a_failure_takes_the_children_that_still_run() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))

    apply_one(Fail(agent_id=attempt.agent_id, fence=1, error="no"))

    assert row(child.agent_id).status == Status.CANCELED


def test_a_success_leaves_children_that_nobody_waited_for() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))

    apply_one(Complete(agent_id=attempt.agent_id, fence=1))

    assert row(child.agent_id).status == Status.QUEUED


def test_a_cancel_leaves_what_was_enqueued_and_not_spawned() -> None:
    attempt = running_parent()
    other = defined("research").enqueue(Company(name="Acme"))
    Activity.objects.filter(pk=other.agent_id).update(parent=attempt.agent_id)

    activity.cancel(attempt.agent_id)

    assert row(other.agent_id).status == Status.QUEUED


def test_the_reconciler_cancels_orphans() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    Activity.objects.filter(pk=attempt.agent_id).update(status=Status.CANCELED)  # a crash came in between

    reconcile()

    assert row(child.agent_id).status == Status.CANCELED


def test_a_retry_of_the_parent_repeats_what_failed_and_keeps_what_succeeded() -> None:
    FAILING.add("Globex")
    agent_id = parent_of()
    drain()
    FAILING.clear()
    RUNS.clear()

    activity.retry(agent_id)
    drain()

    assert row(agent_id).result == ["Acme", "Globex"]
    assert RUNS == ["discover", "Globex", "discover"]
    assert row(agent_id).children.count() == 2


def test_an_automatic_retry_of_the_parent_repeats_what_failed_too() -> None:
    FAILING.add("Globex")
    task("discover", max_retries=1)(discover)
    agent_id = parent_of()

    drain()

    assert row(agent_id).attempt == 2
    assert RUNS.count("Globex") == 2
    assert RUNS.count("Acme") == 1


def test_a_parked_parent_can_be_canceled_and_retried() -> None:
    agent_id = parent_of()
    held, attempt = claimed_parent(agent_id)
    park(attempt, attempt.spawn("research", Company(name="Acme")).agent_id)
    get_queue().exchange("default", "w", [Ack(held, Outcome.DONE)])
    activity.cancel(agent_id)

    activity.retry(agent_id)
    drain()

    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, ["Acme", "Globex"])
