"""Children: spawned once, gathered in order, waited for without a slot, and canceled with their parent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from pydantic import BaseModel

from django_agentexec import Attempt, TaskCanceled, TaskFailed, activity, get_result, task
from django_agentexec.activity.operations import Complete, Fail
from django_agentexec.activity.parking import Park, Parked
from django_agentexec.activity.writer import apply_one
from django_agentexec.exceptions import InvalidOption, InvalidTransition, SpawnMismatch, StaleAttempt
from django_agentexec.models import Activity, Status, Ties
from django_agentexec.queues import Ack, Outcome, get_queue
from django_agentexec.tasks import TaskDefinition, registry
from django_agentexec.testing import drain, memory_queue
from django_agentexec.worker.reconciler import reconcile
from tests.rows import claim, claimed_ids, messages, row, start

WRITES_OF_A_BATCH = 1 if connection.vendor == "postgresql" else 2  # rows and lines
pytestmark = pytest.mark.django_db(transaction=True)

RUNS: list[str] = []
FAILING: set[str] = set()


class Company(BaseModel):
    name: str


class Brief(BaseModel):
    about: str


class Companies(BaseModel):
    names: list[str] = ["Acme", "Globex"]
    tolerant: bool = False


def research(agent_id: UUID, context: Company) -> Brief:
    RUNS.append(context.name)
    if context.name in FAILING:
        raise ValueError(context.name)
    return Brief(about=context.name)


async def discover(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    RUNS.append("discover")
    runs = [await attempt.aspawn("research", Company(name=name)) for name in context.names]
    briefs = await attempt.agather(*runs, return_exceptions=context.tolerant)
    return [brief.about if isinstance(brief, Brief) else type(brief).__name__ for brief in briefs]


def sync_discover(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    RUNS.append("discover")
    runs = attempt.spawn_many("research", [Company(name=name) for name in context.names])
    return [brief.about for brief in attempt.gather(*runs)]


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    RUNS.clear()
    FAILING.clear()
    before = {definition.name for definition in registry}
    task("research", max_retries=0)(research)
    task("discover", max_retries=0)(discover)
    task("sync_discover", max_retries=0)(sync_discover)
    with memory_queue():
        yield
    for name in {definition.name for definition in registry} - before:
        registry.unregister(name)


def defined(name: str) -> TaskDefinition[..., Any]:
    return registry.get(name)


def parent_of(name: str = "discover", **context: Any) -> UUID:
    return defined(name).enqueue(Companies(**context)).agent_id


def attempt_of(agent_id: UUID, fence: int = 1) -> Attempt:
    return Attempt(agent_id, row(agent_id).attempt, fence, lambda operation: None)  # type: ignore[arg-type,return-value]  # unused


def running_parent() -> Attempt:
    agent_id = parent_of()
    start(agent_id)
    return attempt_of(agent_id)


def park(attempt: Attempt, *children: UUID) -> Activity:
    return apply_one(Park(agent_id=attempt.agent_id, fence=attempt.fence, awaited=children))


def finish(agent_id: UUID, fence: int = 9) -> None:
    start(agent_id, fence)
    apply_one(Complete(agent_id=agent_id, fence=fence, result={"about": "x"}))


# The whole way


@pytest.mark.parametrize("name", ["discover", "sync_discover"])
def test_a_parent_gets_the_results_of_its_children_in_order(name: str) -> None:
    agent_id = parent_of(name)

    drain()

    assert row(agent_id).result == ["Acme", "Globex"]
    assert RUNS == ["discover", "Acme", "Globex", "discover"]
    assert {child.agent_type for child in row(agent_id).children.all()} == {"research"}


def test_a_wait_is_one_attempt_and_charges_no_retry() -> None:
    agent_id = parent_of()

    drain()

    assert (row(agent_id).attempt, row(agent_id).retries) == (1, 0)
    assert messages(agent_id) == [
        "Waiting to start.",
        "Task started.",
        "Waiting for 2 activities.",
        "What it waited for has ended.",
        "Task goes on.",
        "Task completed successfully.",
    ]


class InsideATestCase(TestCase):
    """Nothing is ever committed here."""

    def test_parents_and_children_run_in_a_test_case(self) -> None:
        agent_id = parent_of()

        drain()

        assert row(agent_id).result == ["Acme", "Globex"]

    def test_the_children_of_a_canceled_parent_do_not_run(self) -> None:
        attempt = running_parent()
        child = attempt.spawn("research", Company(name="Acme"))
        activity.cancel(attempt.agent_id)

        drain()

        assert (row(child.agent_id).status, RUNS) == (Status.CANCELED, [])


def test_waiting_tasks_of_a_group_wait_together() -> None:
    async def both(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        async def one(name: str) -> str:
            (brief,) = await attempt.agather(await attempt.aspawn("research", Company(name=name), key=name))
            return str(brief.about)

        async with asyncio.TaskGroup() as group:
            found = [group.create_task(one(name)) for name in context.names]
        return [task.result() for task in found]

    definition = task("both", max_retries=0)(both)
    handle = definition.enqueue(Companies())

    drain()

    assert get_result(handle, timeout=0) == ["Acme", "Globex"]


# Spawn


def test_a_handler_that_runs_again_finds_its_children() -> None:
    first = running_parent()
    children = first.spawn_many("research", [Company(name="Acme"), Company(name="Globex")])

    again = attempt_of(first.agent_id)
    found = [again.spawn("research", Company(name=name)) for name in ("Acme", "Globex")]

    assert [handle.agent_id for handle in found] == [handle.agent_id for handle in children]
    assert [handle.created for handle in (*children, *found)] == [True, True, False, False]


def test_a_child_is_found_by_its_key_in_any_order() -> None:
    first = running_parent()
    acme = first.spawn("research", Company(name="Acme"), key="acme")
    globex = first.spawn("research", Company(name="Globex"), key="globex")

    again = attempt_of(first.agent_id)

    assert again.spawn("research", Company(name="Globex, later"), key="globex").agent_id == globex.agent_id
    assert again.spawn("research", Company(name="Acme"), key="acme").agent_id == acme.agent_id


def test_a_handler_that_spawns_others_than_before_is_told_so() -> None:
    first = running_parent()
    first.spawn("research", Company(name="Acme"))

    with pytest.raises(SpawnMismatch, match=r"was spawned with the context .*'Acme'"):
        attempt_of(first.agent_id).spawn("research", Company(name="Globex"))


def test_a_context_type_that_got_a_field_since_is_the_same_context() -> None:
    first = running_parent()
    child = first.spawn("discover", Companies())
    Activity.objects.filter(pk=child.agent_id).update(context={"names": ["Acme", "Globex"]})  # before `tolerant`

    assert attempt_of(first.agent_id).spawn("discover", Companies()).agent_id == child.agent_id


def test_children_have_their_parents_metadata_unless_said() -> None:
    agent_id = defined("discover").enqueue(Companies(), metadata={"org": 1}).agent_id
    start(agent_id)
    attempt = attempt_of(agent_id)

    inherited = attempt.spawn("research", Company(name="Acme"))
    own = attempt.spawn("research", Company(name="Globex"), metadata={"org": 2})

    assert [row(child.agent_id).metadata for child in (inherited, own)] == [{"org": 1}, {"org": 2}]


def test_a_key_belongs_to_one_task() -> None:
    first = running_parent()
    first.spawn("research", Company(name="Acme"), key="a")

    with pytest.raises(SpawnMismatch, match="is a 'research', but now a 'discover'"):
        attempt_of(first.agent_id).spawn("discover", Companies(), key="a")


@pytest.mark.parametrize("keys", [["a", "a"], ["", "b"], ["x" * 300, "b"]])
def test_impossible_keys_spawn_nothing(keys: list[str]) -> None:
    attempt = running_parent()

    with pytest.raises(InvalidOption):
        attempt.spawn_many("research", [Company(name="a"), Company(name="b")], keys=keys)

    assert not row(attempt.agent_id).children.exists()


def test_an_attempt_that_lost_its_activity_spawns_nothing() -> None:
    stale = running_parent()
    start(stale.agent_id, fence=2)

    with pytest.raises(StaleAttempt):
        stale.spawn("research", Company(name="Acme"))

    assert not row(stale.agent_id).children.exists()


def test_a_hundred_children_take_as_many_queries_as_one(django_assert_num_queries: Any) -> None:
    attempt = running_parent()
    savepoint = 2

    # The parent's lock, the search, the inserts in a savepoint, and the parent's flag.
    with transaction.atomic(), django_assert_num_queries(2 * savepoint + 3 + WRITES_OF_A_BATCH):
        attempt.spawn_many("research", [Company(name=str(n)) for n in range(100)])


def test_a_child_that_a_crash_kept_from_its_queue_is_pushed_when_it_is_found() -> None:
    first = running_parent()
    child = first.spawn("research", Company(name="Acme"))
    get_queue().cancel("default", [child.agent_id])

    attempt_of(first.agent_id).spawn("research", Company(name="Acme"))

    assert child.agent_id in claimed_ids()


# Gather


def test_gather_waits_for_spawned_children_only() -> None:
    attempt = running_parent()
    other = defined("research").enqueue(Company(name="Acme"))

    with pytest.raises(InvalidOption, match="was not spawned by"):
        attempt.gather(other)


def test_a_wait_inside_a_transaction_of_the_handlers_is_refused() -> None:
    def in_a_transaction(agent_id: UUID, context: Companies, attempt: Attempt) -> None:
        with transaction.atomic():
            attempt.gather(attempt.spawn("research", Company(name="Acme")))

    definition = task("in_a_transaction", max_retries=0)(in_a_transaction)
    agent_id = definition.enqueue(Companies()).agent_id

    drain()

    assert row(agent_id).error.startswith("TransactionManagementError")
    assert "gather after the block" in row(agent_id).error


def test_an_except_exception_does_not_stop_the_wait() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))

    def handler() -> None:
        with suppress(Exception):
            attempt.gather(child)

    with pytest.raises(Parked):
        handler()


def test_a_failed_child_fails_its_parent() -> None:
    FAILING.add("Globex")
    agent_id = parent_of()

    drain()

    with pytest.raises(TaskFailed, match=r"TaskFailed: Activity .* ValueError: Globex"):
        get_result(agent_id, timeout=0)


def test_failures_may_stand_among_the_results() -> None:
    FAILING.add("Acme")
    agent_id = parent_of(tolerant=True)

    drain()

    assert row(agent_id).result == ["TaskFailed", "Globex"]


def test_a_canceled_child_wakes_its_parent() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    activity.cancel(child.agent_id)

    assert row(attempt.agent_id).status == Status.QUEUED
    with pytest.raises(TaskCanceled):
        attempt.gather(child)


# Parking


def test_a_parked_parent_has_no_lease_and_reads_as_running() -> None:
    attempt = running_parent()
    children = attempt.spawn_many("research", [Company(name="Acme"), Company(name="Globex")])

    parked = park(attempt, *(child.agent_id for child in children))

    assert (parked.status, parked.is_parked, parked.waiting_for) == (Status.RUNNING, True, children[1].agent_id)
    assert list(Activity.objects.parked()) == [parked]


def test_the_last_child_wakes_its_parent_once() -> None:
    attempt = running_parent()
    children = attempt.spawn_many("research", [Company(name=str(n)) for n in range(3)])
    park(attempt, *(child.agent_id for child in children))
    (claimed, *_) = claim(1)
    get_queue().exchange("default", "w", [Ack(claimed, Outcome.DONE)])

    states = []
    for child in reversed(children):  # the first that is looked at ends first
        finish(child.agent_id)
        states.append(row(attempt.agent_id).status)

    assert states == [Status.RUNNING, Status.RUNNING, Status.QUEUED]
    assert messages(attempt.agent_id).count("What it waited for has ended.") == 1
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

    get_queue().exchange("default", "w", [Ack(held, Outcome.DONE)])

    assert attempt.agent_id in claimed_ids()


def test_a_parent_waits_for_those_that_it_gathers() -> None:
    attempt = running_parent()
    awaited = attempt.spawn("research", Company(name="Acme"))
    attempt.spawn("research", Company(name="Globex"))
    park(attempt, awaited.agent_id)

    finish(awaited.agent_id)

    assert row(attempt.agent_id).status == Status.QUEUED


def test_nobody_starts_a_parked_parent() -> None:
    attempt = running_parent()
    park(attempt, attempt.spawn("research", Company(name="Acme")).agent_id)

    with pytest.raises(InvalidTransition, match="waits for others"):
        start(attempt.agent_id, fence=5)


def test_the_attempt_that_parked_writes_nothing_more() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    for late in (
        Complete(agent_id=attempt.agent_id, fence=1),
        Fail(agent_id=attempt.agent_id, fence=1, error="no"),
    ):
        with pytest.raises(StaleAttempt):
            apply_one(late)
    with pytest.raises(StaleAttempt):
        attempt.spawn("research", Company(name="Globex"))


def test_the_same_park_again_changes_nothing() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    assert park(attempt, child.agent_id).is_parked
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
    (held,) = claim(1)
    start(first, held.fence)
    attempt = attempt_of(first, held.fence)
    park(attempt, attempt.spawn("research", Company(name="Acme")).agent_id)

    get_queue().exchange("default", "w", [Ack(held, Outcome.DONE)])

    assert second in claimed_ids()


def test_who_was_woken_goes_before_who_has_not_begun() -> None:
    parent = parent_of()
    (held,) = claim(1)
    start(parent, held.fence)
    attempt = attempt_of(parent, held.fence)
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    for _ in range(3):
        parent_of()
    get_queue().exchange("default", "w", [Ack(held, Outcome.DONE)])

    finish(child.agent_id)

    assert claimed_ids(1) == [parent]


def test_a_woken_parent_stands_before_what_came_after_it() -> None:
    keyed = task("keyed_parent", lock_key="tenant:1")(discover)
    first, second = (keyed.enqueue(Companies()).agent_id for _ in range(2))
    (held,) = claim(1)
    start(first, held.fence)
    attempt = attempt_of(first, held.fence)
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)
    finish(child.agent_id)

    get_queue().exchange("default", "w", [Ack(held, Outcome.DONE)])

    assert [one for one in claimed_ids() if one in (first, second)] == [first]


# Cancel, failure, retry


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
    (held,) = claim(1)
    start(agent_id, held.fence)
    attempt = attempt_of(agent_id, held.fence)
    park(attempt, attempt.spawn("research", Company(name="Acme")).agent_id)
    get_queue().exchange("default", "w", [Ack(held, Outcome.DONE)])
    activity.cancel(agent_id)

    activity.retry(agent_id)
    drain()

    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, ["Acme", "Globex"])


# What it costs those who have no family


def test_the_end_of_an_activity_without_ties_takes_no_statement_more() -> None:
    agent_id = defined("research").enqueue(Company(name="Acme")).agent_id
    start(agent_id)
    assert row(agent_id).ties == Ties.NONE

    with CaptureQueriesContext(connection) as queries:
        apply_one(Complete(agent_id=agent_id, fence=1))

    statements = [query["sql"].split()[0] for query in queries]
    assert len([one for one in statements if one not in ("BEGIN", "COMMIT")]) == 1 + WRITES_OF_A_BATCH


def test_crashes_before_a_wait_do_not_count_after_it() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    Activity.objects.filter(pk=attempt.agent_id).update(crashes=2)
    park(attempt, child.agent_id)

    finish(child.agent_id)

    assert (row(attempt.agent_id).crashes, row(attempt.agent_id).forgiven) == (0, 3)
