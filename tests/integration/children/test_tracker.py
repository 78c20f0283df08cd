"""Trackers: members by name, and a task that is enqueued exactly once when all members are done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test import TestCase
from pydantic import BaseModel

from django_agentexec import (
    ActivityNotFound,
    Attempt,
    InvalidContext,
    InvalidOption,
    InvalidTransition,
    Status,
    Tracker,
    UnknownTask,
    activity,
    task,
)
from django_agentexec.current import running
from django_agentexec.models import Activity, TrackerMember, TrackerState
from django_agentexec.pool.reconciler import reconcile
from django_agentexec.tasks import registry
from django_agentexec.testing import drain, make_attempt, memory_queue
from tests.support.activity_rows import claimed_ids, complete, fail, row, start
from tests.support.attempts import worker_attempt
from tests.testapp.agents import Keyed, Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

TOTALS: list[str] = []


class Batch(BaseModel):
    batch: str = "b"
    names: list[str] = []


def total(agent_id: UUID, context: Batch) -> None:
    TOTALS.append(context.batch)


def find(agent_id: UUID, context: Batch, attempt: Attempt) -> None:
    tracker = Tracker("find", context.batch)
    for name in context.names:
        tracker.add(attempt.spawn(shout, Text(text=name)))
    tracker.on_complete("total", context)


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    TOTALS.clear()
    task("total")(total)
    task("find", max_retries=0)(find)
    with memory_queue():
        yield


@pytest.fixture
def tracker() -> Tracker:
    return Tracker("research", "batch-1")


def totals() -> int:
    return Activity.objects.of_type("total").count()


def finish(agent_id: UUID) -> None:
    start(agent_id)
    complete(agent_id)


# Counting


def test_members_are_added_and_marked_as_done(tracker: Tracker) -> None:
    assert tracker.incr("a", "b") == 2
    assert (tracker.count(), tracker.is_complete) == (2, False)
    assert tracker.decr("a") == 1
    assert tracker.decr("b") == 0
    assert (tracker.count(), tracker.is_complete) == (0, True)


def test_a_member_that_is_added_twice_counts_once(tracker: Tracker) -> None:
    tracker.incr("a", "a")
    tracker.incr("a", "b")
    tracker.decr("a")
    tracker.decr("a")

    assert tracker.count() == 1


def test_a_done_member_is_not_added_again(tracker: Tracker) -> None:
    tracker.incr("a")
    tracker.decr("a")

    assert tracker.incr("a") == 0


def test_a_member_may_be_done_before_it_is_added(tracker: Tracker) -> None:
    tracker.decr("a")

    assert tracker.incr("a", "b") == 1


def test_within_a_handler_the_member_is_the_running_activity(tracker: Tracker) -> None:
    attempt = make_attempt()

    with running(attempt):
        assert (tracker.incr(), tracker.decr()) == (1, 0)

    assert TrackerMember.objects.get().member == str(attempt.agent_id)


def test_outside_of_a_handler_the_member_must_be_named(tracker: Tracker) -> None:
    with pytest.raises(InvalidOption, match="Name the member"):
        tracker.incr()


def test_name_and_batch_identify_a_tracker(tracker: Tracker) -> None:
    tracker.incr("a")

    assert Tracker("research", "batch-2").count() == Tracker("review", "batch-1").count() == 0
    assert Tracker("research", "batch-1").count() == 1


async def test_every_method_has_an_async_twin(tracker: Tracker) -> None:
    assert await tracker.aincr("a", "b") == 2
    assert await tracker.adecr("a") == 1
    assert (await tracker.acount(), await tracker.ais_complete()) == (1, False)
    await tracker.aon_complete("total", Batch())
    handle = await shout.aenqueue(Text())
    assert await tracker.aadd(handle) == 2
    await tracker.adelete()
    assert await tracker.acount() == 0


def test_a_rollback_counts_nothing(tracker: Tracker) -> None:
    with transaction.atomic():
        tracker.incr("a")
        transaction.set_rollback(True)

    assert tracker.count() == 0


@pytest.mark.parametrize(("name", "batch_id"), [("", "b"), ("a", ""), ("x" * 201, "b"), ("a\x00", "b")])
def test_impossible_names_are_refused(name: str, batch_id: str) -> None:
    with pytest.raises(InvalidOption, match="has 1 to 200 characters"):
        Tracker(name, batch_id)


@pytest.mark.parametrize("members", [[], ["a"]], ids=["complete", "open"])
def test_complete_is_deprecated_and_right_as_a_condition_and_as_a_method(tracker: Tracker, members: list[str]) -> None:
    if members:
        tracker.incr(*members)

    with pytest.warns(DeprecationWarning, match=r"use Tracker\.is_complete") as warned:
        found = [bool(tracker.complete), tracker.complete()]

    assert found == [tracker.is_complete] * 2 == [not members] * 2
    assert {warning.filename for warning in warned} == {__file__}


async def test_acomplete_is_deprecated(tracker: Tracker) -> None:
    with pytest.warns(DeprecationWarning, match="use ais_complete"):
        assert await tracker.acomplete()


# The task at the end


def test_the_last_member_enqueues_the_task_once(tracker: Tracker) -> None:
    tracker.incr("a", "b")
    tracker.on_complete("total", Batch(batch="x"), metadata={"org": 1})
    tracker.decr("a")
    assert totals() == 0

    tracker.decr("b")
    tracker.decr("b")

    stored = Activity.objects.get()
    assert (stored.agent_type, stored.context["batch"], stored.metadata) == ("total", "x", {"org": 1})
    assert claimed_ids() == [stored.agent_id]


def test_nothing_is_enqueued_before_on_complete_is_called(tracker: Tracker) -> None:
    tracker.incr("a")
    tracker.decr("a")
    tracker.incr("b")
    tracker.decr("b")
    assert totals() == 0

    tracker.on_complete("total", Batch())

    assert totals() == 1


def test_an_empty_batch_is_complete_immediately(tracker: Tracker) -> None:
    tracker.on_complete("total", Batch())

    assert totals() == 1


def test_a_second_call_changes_nothing(tracker: Tracker) -> None:
    tracker.incr("a")
    tracker.on_complete("total", Batch(batch="first"))
    tracker.on_complete("total", Batch(batch="second"))
    tracker.decr("a")
    tracker.on_complete("total", Batch(batch="third"))

    assert [one.context["batch"] for one in Activity.objects.all()] == ["first"]


def test_another_task_is_refused(tracker: Tracker) -> None:
    tracker.incr("a")
    tracker.on_complete("total", Batch())

    with pytest.raises(InvalidOption, match="already has the task 'total'; it cannot be changed to 'shout'"):
        tracker.on_complete(shout, Text())


def test_a_new_member_after_the_end_is_refused(tracker: Tracker) -> None:
    tracker.incr("a")
    tracker.decr("a")
    tracker.on_complete("total", Batch())

    tracker.incr("a")  # again: fine
    with pytest.raises(InvalidTransition, match="member 'late' cannot be added"):
        tracker.incr("late")


@pytest.mark.parametrize(
    ("name", "context", "error"),
    [("nobody", Batch(), UnknownTask), ("total", Keyed(key="a"), InvalidContext)],
    ids=["task", "context"],
)
def test_an_invalid_task_or_context_is_refused_immediately(
    tracker: Tracker, name: str, context: BaseModel, error: type[Exception]
) -> None:
    with pytest.raises(error):
        tracker.on_complete(name, context)

    assert not TrackerState.objects.exists()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite lets one transaction write at a time")
def test_concurrent_ends_enqueue_the_task_once(tracker: Tracker) -> None:
    for round_number in range(10):
        batch = Tracker("race", str(round_number))
        batch.incr("a", "b")
        batch.on_complete("total", Batch(batch=str(round_number)))
        barrier = threading.Barrier(2)

        def out(member: str, batch: Tracker = batch, barrier: threading.Barrier = barrier) -> None:
            try:
                barrier.wait(10)
                batch.decr(member)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=out, args=[member]) for member in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

    assert totals() == 10


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite lets one transaction write at a time")
@pytest.mark.parametrize("batch", ["1", "2", "3", "4", "5"])
def test_under_repeatable_read_all_members_count_and_the_last_enqueues_the_task(batch: str) -> None:
    members = [f"page {number}" for number in range(12)]
    failed: list[Exception] = []

    def each(change: Callable[[str], object]) -> None:
        barrier = threading.Barrier(len(members))

        def run(member: str) -> None:
            try:
                connection.ensure_connection()
                with connection.cursor() as cursor:
                    cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                barrier.wait(10)
                change(member)
            except Exception as error:  # for the assertion
                failed.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=run, args=[member]) for member in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    each(lambda member: Tracker("pages", batch).incr(member))
    assert (failed, Tracker("pages", batch).count()) == ([], 12)
    Tracker("pages", batch).on_complete("total", Batch(batch=batch))

    each(lambda member: Tracker("pages", batch).decr(member))

    assert (failed, Tracker("pages", batch).count(), totals()) == ([], 0, 1)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite lets one transaction write at a time")
def test_a_callers_transaction_with_an_old_snapshot_gets_the_databases_error(tracker: Tracker) -> None:
    def count_with_an_old_snapshot() -> None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("SELECT count(*) FROM agentexec_tracker")
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join(10)
            tracker.incr("b")

    def elsewhere() -> None:
        tracker.incr("a")
        connections.close_all()

    with pytest.raises(OperationalError, match="serialize"):
        count_with_an_old_snapshot()

    assert tracker.count() == 1


# Activities


def test_an_activity_is_done_when_it_ends_with_any_status(tracker: Tracker) -> None:
    handles = [shout.enqueue(Text(text=str(n))) for n in range(3)]
    tracker.add(*handles)
    tracker.on_complete("total", Batch())

    finish(handles[0].agent_id)
    start(handles[1].agent_id)
    fail(handles[1].agent_id)
    assert (tracker.count(), totals()) == (1, 0)
    activity.cancel(handles[2].agent_id)

    assert (tracker.count(), totals()) == (0, 1)


def test_an_ended_activity_is_added_as_done(tracker: Tracker) -> None:
    handle = shout.enqueue(Text())
    finish(handle.agent_id)

    assert tracker.add(handle) == 0


def test_an_activity_that_is_retried_counts_once(tracker: Tracker) -> None:
    first, second = shout.enqueue(Text()), shout.enqueue(Text())
    tracker.add(first, second)
    tracker.on_complete("total", Batch())
    activity.cancel(first.agent_id)
    activity.retry(first.agent_id)
    activity.cancel(first.agent_id)

    assert (tracker.count(), totals()) == (1, 0)


def test_an_unknown_activity_is_refused(tracker: Tracker) -> None:
    with pytest.raises(ActivityNotFound):
        tracker.add(uuid4())

    assert not TrackerMember.objects.exists()


def test_the_reconciler_marks_missed_ends(tracker: Tracker) -> None:
    kept, deleted = shout.enqueue(Text()), shout.enqueue(Text())
    tracker.add(kept, deleted)
    tracker.on_complete("total", Batch())
    Activity.objects.filter(pk=kept.agent_id).update(status=Status.COMPLETE)  # a crash came in between
    row(deleted.agent_id).delete()

    reconcile()

    assert totals() == 1


def test_an_unregistered_task_does_not_stop_the_reconciler(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    handle = shout.enqueue(Text())
    tracker.add(handle)
    tracker.on_complete("total", Batch())
    registry.unregister("total")

    activity.cancel(handle.agent_id)
    reconcile()

    assert "cannot enqueue its task" in caplog.text
    task("total")(total)
    reconcile()
    assert totals() == 1


# In handlers


def test_a_handler_fans_out_and_the_total_runs_once() -> None:
    parent = registry.get("find").enqueue(Batch(batch="x", names=["a", "b", "c"]), metadata={"org": 1})

    drain()

    assert TOTALS == ["x"]
    aggregate = Activity.objects.of_type("total").get()
    assert (aggregate.parent_id, aggregate.metadata) == (parent.agent_id, {"org": 1})


def test_a_redelivered_handler_enqueues_nothing_twice() -> None:
    context = Batch(batch="x", names=["a", "b"])
    parent = registry.get("find").enqueue(context)
    start(parent.agent_id)
    for _ in range(2):
        attempt = worker_attempt(parent.agent_id)
        with running(attempt):
            find(parent.agent_id, context, attempt)

    drain()

    assert (TOTALS, Activity.objects.of_type("shout").count()) == (["x"], 2)


class InsideATestCase(TestCase):
    def test_trackers_work_in_a_test_case(self) -> None:
        registry.get("find").enqueue(Batch(batch="x", names=["a", "b"]))

        drain()

        assert TOTALS == ["x"]


def test_a_hundred_members_take_as_many_queries_as_one(tracker: Tracker, django_assert_num_queries: Any) -> None:
    tracker.incr("first")
    savepoint = 2

    with transaction.atomic(), django_assert_num_queries(savepoint + 5):
        tracker.incr(*map(str, range(100)))
