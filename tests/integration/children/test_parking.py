"""A parent that waits for its children: without a slot, a lease or a lock, until the last child wakes it."""

from __future__ import annotations

import pytest

from django_agentexec import InvalidTransition, StaleAttempt, Status, task
from django_agentexec.models import Activity
from django_agentexec.pool.reconciler import reconcile
from django_agentexec.queues import Ack, Outcome, get_queue
from django_agentexec.testing import drain
from tests.support.activity_rows import claim, claimed_ids, complete, fail, messages, row, start
from tests.support.research_family import (
    Companies,
    Company,
    claimed_parent,
    discover,
    finish,
    parent_of,
    park,
    research,
    running_parent,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]


def test_a_parked_parent_has_no_lease_and_reads_as_running() -> None:
    attempt = running_parent()
    children = attempt.spawn_many("research", [Company(name="Acme"), Company(name="Globex")])

    suspended = park(attempt, *(child.agent_id for child in children))

    assert (suspended.status, suspended.is_suspended, suspended.blocking_child_id) == (
        Status.RUNNING,
        True,
        children[1].agent_id,
    )
    assert list(Activity.objects.suspended()) == [suspended]


def test_the_last_child_wakes_its_parent_once() -> None:
    attempt = running_parent()
    children = attempt.spawn_many("research", [Company(name=str(n)) for n in range(3)])
    park(attempt, *(child.agent_id for child in children))
    (claimed, *_) = claim(1)
    get_queue().ack_and_claim("default", "w", [Ack(claimed, Outcome.DONE)])

    states = []
    for child in reversed(children):  # the first that is looked at ends first
        finish(child.agent_id)
        states.append(row(attempt.agent_id).status)

    assert states == [Status.RUNNING, Status.RUNNING, Status.QUEUED]
    assert messages(attempt.agent_id).count("All child activities have finished.") == 1
    assert claimed_ids().count(attempt.agent_id) == 1


def test_what_ended_before_the_wait_began_is_not_waited_for() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    finish(child.agent_id)

    assert park(attempt, child.agent_id).status == Status.QUEUED


def test_a_wake_before_the_worker_has_let_go_is_not_lost() -> None:
    attempt = running_parent()
    (held,) = claim(1)
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    finish(child.agent_id)

    get_queue().ack_and_claim("default", "w", [Ack(held, Outcome.DONE)])

    assert attempt.agent_id in claimed_ids()


def test_a_parent_waits_for_those_that_it_gathers() -> None:
    attempt = running_parent()
    awaited_ids = attempt.spawn("research", Company(name="Acme"))
    attempt.spawn("research", Company(name="Globex"))
    park(attempt, awaited_ids.agent_id)

    finish(awaited_ids.agent_id)

    assert row(attempt.agent_id).status == Status.QUEUED


def test_nobody_starts_a_parked_parent() -> None:
    attempt = running_parent()
    park(attempt, attempt.spawn("research", Company(name="Acme")).agent_id)

    with pytest.raises(InvalidTransition, match="is suspended"):
        start(attempt.agent_id, fence=5)


def test_the_attempt_that_parked_writes_nothing_more() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    for end in (complete, fail):
        with pytest.raises(StaleAttempt):
            end(attempt.agent_id)
    with pytest.raises(StaleAttempt):
        attempt.spawn("research", Company(name="Globex"))


def test_the_same_park_again_changes_nothing() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    assert park(attempt, child.agent_id).is_suspended
    assert messages(attempt.agent_id).count("Waiting for 1 activity.") == 1


def test_the_reconciler_leaves_a_parked_parent_where_it_is() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    get_queue().cancel("default", [attempt.agent_id, child.agent_id])
    Activity.objects.update(updated_at="2020-01-01T00:00Z")

    reconcile()

    assert claimed_ids() == [child.agent_id]


def test_the_reconciler_wakes_whom_nobody_woke(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    Activity.objects.filter(pk=child.agent_id).update(status=Status.COMPLETE)  # a crash came between end and wake

    reconcile()

    assert row(attempt.agent_id).status == Status.QUEUED


def test_a_child_that_is_deleted_does_not_hold_its_parent() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    row(child.agent_id).delete()

    reconcile()

    assert row(attempt.agent_id).status == Status.QUEUED


def test_a_parked_parent_gives_up_its_lock() -> None:
    keyed = task("keyed_parent", lock_key="tenant:1", max_retries=0)(discover)
    task("research", lock_key="tenant:1", max_retries=0)(research)
    agent_id = keyed.enqueue(Companies()).agent_id

    drain()

    assert row(agent_id).result == ["Acme", "Globex"]


def test_another_activity_of_its_key_may_run_while_a_parent_is_parked() -> None:
    keyed = task("keyed_parent", lock_key="tenant:1")(discover)
    first, second = (keyed.enqueue(Companies()).agent_id for _ in range(2))
    held, attempt = claimed_parent(first)
    park(attempt, attempt.spawn("research", Company(name="Acme")).agent_id)

    get_queue().ack_and_claim("default", "w", [Ack(held, Outcome.DONE)])

    assert second in claimed_ids()


def test_who_was_woken_goes_before_who_has_not_begun() -> None:
    parent = parent_of()
    held, attempt = claimed_parent(parent)
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    for _ in range(3):
        parent_of()
    get_queue().ack_and_claim("default", "w", [Ack(held, Outcome.DONE)])

    finish(child.agent_id)

    assert claimed_ids(1) == [parent]


def test_a_woken_parent_stands_before_what_came_after_it() -> None:
    keyed = task("keyed_parent", lock_key="tenant:1")(discover)
    first, second = (keyed.enqueue(Companies()).agent_id for _ in range(2))
    held, attempt = claimed_parent(first)
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    finish(child.agent_id)

    get_queue().ack_and_claim("default", "w", [Ack(held, Outcome.DONE)])

    assert [one for one in claimed_ids() if one in (first, second)] == [first]
