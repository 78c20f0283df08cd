"""The verbs of an activity's life, on real rows and a real queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import IntegrityError, connection, connections, transaction
from django.utils import timezone
from pydantic import BaseModel

from django_agentexec import (
    ActivityNotFound,
    InvalidOption,
    InvalidTransition,
    ResultError,
    StaleAttempt,
    Status,
    activity,
)
from django_agentexec.activity.store import apply
from django_agentexec.activity.transitions import Cancel, Complete, Fail, Operation, Progress, Start
from django_agentexec.bulk_sql import postgres
from django_agentexec.models import Activity, ActivityLog
from django_agentexec.queues import get_queue
from django_agentexec.testing import make_attempt
from tests.support.activity_rows import claim, claimed_ids, messages, row, running_activity, start
from tests.testapp.agents import Keyed, Text, keyed, shout

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def running() -> UUID:
    """An activity that a worker has started, with fence 1."""
    return running_activity()


# Progress


@pytest.mark.parametrize("message", ["", " ", None, 5])
def test_a_status_message_without_text_is_refused(message: Any) -> None:
    agent_id = activity.create("nightly")

    with pytest.raises(InvalidOption, match="A status message"):
        activity.update(agent_id, message, 50)
    with pytest.raises(InvalidOption, match="A status message"):
        make_attempt().progress(message, 50)

    assert row(agent_id).percentage == 0


def test_an_update_is_on_the_row_and_in_the_log(running: UUID) -> None:
    activity.update(running, "Reading", percentage=30)

    stored = row(running)
    assert (stored.percentage, stored.latest_log_message) == (30, "Reading")
    assert messages(running)[-1] == "Reading"


async def test_every_verb_has_an_async_form() -> None:
    agent_id = await activity.acreate("import", metadata={"a": 1})
    await activity.aupdate(agent_id, "Half", 50)
    await activity.aadd_usage(agent_id, {"requests": 1})
    await activity.acomplete(agent_id, result=[1])
    failed = await activity.acreate("import")
    await activity.aerror(failed, "no")
    waiting = await activity.acreate("import")
    await activity.acancel(waiting)
    await shout.aenqueue(Text())

    assert (await activity.adetail(agent_id)).result == [1]
    assert (await activity.alist()).total == 4
    assert await activity.acount_active() == 1
    assert await activity.acancel_pending() == 1


def test_progress_of_a_queued_activity_is_refused() -> None:
    handle = shout.enqueue(Text())

    with pytest.raises(InvalidTransition, match="waits in queue 'default'"):
        activity.update(handle.agent_id, "go")


@pytest.mark.parametrize("percentage", [-1, 101, True, "50"])
def test_an_impossible_percentage_writes_nothing(running: UUID, percentage: Any) -> None:
    with pytest.raises(InvalidOption):
        activity.update(running, "Reading", percentage=percentage)

    assert "Reading" not in messages(running)


@pytest.mark.parametrize("end", [activity.complete, activity.cancel, lambda agent_id: activity.error(agent_id, "no")])
def test_progress_after_the_end_is_refused(running: UUID, end: Callable[[UUID], None]) -> None:
    end(running)

    with pytest.raises(InvalidTransition, match="it has ended"):
        activity.update(running, "still here")


def test_text_that_no_database_holds_is_replaced(running: UUID) -> None:
    activity.update(running, "a\x00b\ud800")

    assert messages(running)[-1] == "a\ufffdb\ufffd"


def test_an_id_may_be_text(running: UUID) -> None:
    activity.update(str(running), "as in a URL")  # type: ignore[arg-type]  # what views have at hand

    assert messages(running)[-1] == "as in a URL"


@pytest.mark.parametrize("agent_id", [uuid4(), "nonsense"], ids=["unknown", "nonsense"])
@pytest.mark.parametrize(
    "verb",
    [
        lambda agent_id: activity.update(agent_id, "x"),
        lambda agent_id: activity.add_usage(agent_id, {"requests": 1}),
        activity.complete,
        lambda agent_id: activity.error(agent_id, "x"),
        activity.cancel,
        activity.retry,
        activity.detail,
    ],
)
def test_an_unknown_activity_is_not_found(verb: Callable[[Any], Any], agent_id: Any) -> None:
    with pytest.raises(ActivityNotFound):
        verb(agent_id)


async def test_a_sync_verb_in_async_code_is_refused() -> None:
    agent_id = await activity.acreate("import")

    with pytest.raises(SynchronousOnlyOperation):
        activity.update(agent_id, "forgot the await")


# The end


def test_complete_accepts_json_values_and_pydantic_models(running: UUID) -> None:
    class Found(BaseModel):
        id: UUID

    activity.complete(running, "Done.", result=Found(id=UUID(int=7)))

    stored = row(running)
    assert (stored.status, stored.percentage) == (Status.COMPLETE, 100)
    assert stored.result == {"id": "00000000-0000-0000-0000-000000000007"}
    assert messages(running)[-1] == "Done."


def test_a_result_that_is_no_json_changes_nothing(running: UUID) -> None:
    with pytest.raises(ResultError):
        activity.complete(running, result=object())

    assert row(running).status == Status.RUNNING


def test_an_error_says_why(running: UUID) -> None:
    activity.error(running, "The file is gone.", traceback="...")

    stored = row(running)
    assert (stored.status, stored.error, stored.traceback) == (Status.ERROR, "The file is gone.", "...")
    assert messages(running)[-1] == "Task failed with error: The file is gone."


def test_a_canceled_activity_leaves_its_queue() -> None:
    handle = shout.enqueue(Text())

    activity.cancel(handle.agent_id)

    assert row(handle.agent_id).status == Status.CANCELED
    assert (claimed_ids(), get_queue().missing("default", [handle.agent_id])) == ([], [handle.agent_id])


def test_a_delayed_activity_that_is_canceled_leaves_its_queue() -> None:
    handle = shout.enqueue(Text(), delay=60)

    activity.cancel(handle.agent_id)

    assert get_queue().stats("default").delayed == 0


def test_a_cancel_that_is_rolled_back_leaves_the_activity_in_its_queue() -> None:
    handle = shout.enqueue(Text())

    with transaction.atomic():
        activity.cancel(handle.agent_id)
        transaction.set_rollback(True)

    assert claimed_ids() == [handle.agent_id]
    assert row(handle.agent_id).status == Status.QUEUED


def test_the_cancel_of_a_running_activity_reaches_its_worker() -> None:
    handle = shout.enqueue(Text())
    (claimed,) = claim()
    start(handle.agent_id, claimed.fence)

    activity.cancel(handle.agent_id, "Not needed any more.")

    assert get_queue().heartbeat("default", "w", [claimed]).canceled == [handle.agent_id]
    assert row(handle.agent_id).latest_log_message == "Not needed any more."


def test_a_second_cancel_is_refused(running: UUID) -> None:
    activity.cancel(running)

    with pytest.raises(InvalidTransition, match="cannot be canceled"):
        activity.cancel(running)


# Retry


def test_a_retry_keeps_id_and_history() -> None:
    handle = keyed.enqueue(Keyed(key="a"), priority=1)
    activity.cancel(handle.agent_id)

    activity.retry(handle.agent_id)

    (claimed,) = claim()
    stored = row(handle.agent_id)
    assert claimed.agent_id == handle.agent_id
    assert (stored.status, stored.lock_key, stored.priority) == (Status.QUEUED, "key:a", 1)
    assert messages(handle.agent_id) == ["Waiting to start.", "Task canceled.", "Task queued again."]


@pytest.mark.parametrize("state", ["queued", "running", "complete"])
def test_only_error_and_canceled_can_be_retried(state: str) -> None:
    agent_id = shout.enqueue(Text()).agent_id
    if state != "queued":
        start(agent_id)
    if state == "complete":
        activity.complete(agent_id)

    with pytest.raises(InvalidTransition, match=f"is {state}; only error and canceled"):
        activity.retry(agent_id)


def test_a_retry_that_is_rolled_back_pushes_nothing() -> None:
    handle = shout.enqueue(Text())
    activity.cancel(handle.agent_id)

    with transaction.atomic():
        activity.retry(handle.agent_id)
        transaction.set_rollback(True)

    assert (row(handle.agent_id).status, claimed_ids()) == (Status.CANCELED, [])


# All that is pending


def test_cancel_pending_cancels_active_activities_with_the_metadata() -> None:
    mine = [shout.enqueue(Text(), metadata={"org": "a"}).agent_id for _ in range(3)]
    start(mine[0])
    activity.complete(mine[0])
    other = shout.enqueue(Text(), metadata={"org": "b"})

    canceled = activity.cancel_pending(metadata_filter={"org": "a"})

    assert canceled == 2
    assert claimed_ids() == [other.agent_id]
    assert row(mine[0]).status == Status.COMPLETE


def test_cancel_pending_goes_through_all_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.activity.bulk.ROWS_PER_TRANSACTION", 4)
    shout.enqueue_many([Text()] * 10)

    assert activity.cancel_pending() == 10
    assert (activity.count_active(), claimed_ids()) == (0, [])


# Runs that their creator drives


def test_a_run_by_hand_goes_through_its_life_without_a_queue() -> None:
    agent_id = activity.create("import", "Preparing", context=Text(text="x"), metadata={"org": "a"})
    assert (row(agent_id).status, row(agent_id).context) == (Status.QUEUED, {"text": "x"})

    activity.update(agent_id, "Half", percentage=50)
    assert (row(agent_id).status, row(agent_id).attempt) == (Status.RUNNING, 1)

    activity.complete(agent_id, result=3)
    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, 3)
    assert messages(agent_id) == ["Preparing", "Half", "Task completed successfully."]
    assert claimed_ids() == []


def test_a_run_by_hand_may_have_its_own_id() -> None:
    mine = uuid4()

    assert activity.create("import", agent_id=mine) == mine


@pytest.mark.parametrize(
    ("agent_type", "options"),
    [
        ("", {}),
        ("x" * 201, {}),
        ("a\x00", {}),
        ("import", {"metadata": {"a": object()}}),
        ("import", {"metadata": {"a": "\x00"}}),
        ("import", {"context": {"a": object()}}),
    ],
)
def test_a_run_by_hand_that_cannot_be_stored_writes_nothing(agent_type: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        activity.create(agent_type, **options)

    assert not Activity.objects.exists()


# Batches


def mixed(first: UUID, second: UUID, gone: UUID) -> list[Operation]:
    return [
        Progress(agent_id=first, fence=1, message="one"),
        Progress(agent_id=second, fence=99, message="of another claim"),
        Progress(agent_id=gone, fence=1, message="of nobody"),
        Complete(agent_id=first, fence=1, result={"a": 1}),
        Progress(agent_id=first, fence=1, message="after the end"),
        Cancel(agent_id=second),
    ]


def test_a_refused_operation_does_not_affect_the_rest_of_its_batch() -> None:
    first, second, gone = shout.enqueue(Text()).agent_id, shout.enqueue(Text()).agent_id, uuid4()
    start(first)
    start(second)

    applied = apply(mixed(first, second, gone))

    kinds = [type(one) for one in applied]
    assert kinds == [Activity, StaleAttempt, ActivityNotFound, Activity, StaleAttempt, Activity]
    assert (row(first).status, row(first).result, row(second).status) == (Status.COMPLETE, {"a": 1}, Status.CANCELED)
    assert messages(first)[-2:] == ["one", "Task completed successfully."]


@pytest.mark.parametrize("count", [1, 100])
def test_a_batch_takes_two_or_three_statements(count: int, django_assert_num_queries: Any) -> None:
    ids = [handle.agent_id for handle in shout.enqueue_many([Text()] * count)]
    savepoint = 2
    # `executemany` is one of them, however many rows it has; PostgreSQL writes rows and lines by one.
    update_fields = 1 if connection.vendor == "postgresql" else 2
    with transaction.atomic(), django_assert_num_queries(savepoint + 1 + update_fields):
        applied = apply([Start(agent_id=agent_id, fence=1, worker="w", crashes=0) for agent_id in ids])

    assert len(applied) == count
    assert Activity.objects.running().count() == count


def test_every_column_of_the_state_survives_the_batch() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id, fence=2**62)
    activity.add_usage(agent_id, {"input_tokens": 2**40})

    activity.complete(agent_id, result={"text": "Grüße \U0001f600 %s", "list": [1, None, 1.5]})

    stored = row(agent_id)
    assert stored.fence == 2**62
    assert stored.usage == {"input_tokens": 2**40}
    assert stored.result == {"text": "Grüße \U0001f600 %s", "list": [1, None, 1.5]}
    assert stored.started_at is not None
    assert timezone.is_aware(stored.started_at)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite lets one transaction write at a time")
def test_of_two_that_end_one_activity_at_once_exactly_one_wins(running: UUID) -> None:
    both, outcomes = threading.Barrier(2), []

    def end(operation: Operation) -> None:
        try:
            both.wait(10)
            outcomes.extend(apply([operation]))
        finally:
            connections.close_all()

    ends = [Complete(agent_id=running, fence=1), Cancel(agent_id=running)]
    threads = [threading.Thread(target=end, args=[operation]) for operation in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    (winner,) = [one for one in outcomes if isinstance(one, Activity)]
    (loser,) = [one for one in outcomes if isinstance(one, InvalidTransition)]
    assert row(running).status == winner.status
    assert ActivityLog.objects.filter(activity_id=running, status__in=["complete", "canceled"]).count() == 1
    assert loser


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite lets one transaction write at a time")
def test_a_write_does_not_wait_for_transactions_that_refer_to_the_row(running: UUID) -> None:
    """A handler inserts, in its own transaction, rows that point to its activity, and reports progress."""
    written = threading.Event()

    def report() -> None:
        try:
            apply([Progress(agent_id=running, fence=1, message="from the worker's writer")])
            written.set()
        finally:
            connections.close_all()

    with transaction.atomic():
        ActivityLog.objects.create(activity_id=running, message="a reference", status=Status.RUNNING)
        thread = threading.Thread(target=report)
        thread.start()
        assert written.wait(10)
    thread.join(10)


def test_a_failure_is_written_with_its_due_time(running: UUID) -> None:
    apply([Fail(agent_id=running, fence=1, error="no", retry_delay=60.0)])

    due = row(running).run_after
    assert due is not None
    assert 59 < (due - timezone.now()).total_seconds() <= 60


def test_a_create_that_fails_leaves_the_callers_transaction_whole() -> None:
    agent_id = activity.create("import")
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            activity.create("import", agent_id=agent_id)
        assert Activity.objects.count() == 1


@pytest.mark.parametrize(("limit", "value"), [("MAX_STATEMENT_SIZE", 2_000), ("MAX_ROWS", 7)])
def test_a_large_batch_is_written_in_portions(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, limit, value)
    ids = [handle.agent_id for handle in shout.enqueue_many([Text()] * 20)]
    for agent_id in ids:
        start(agent_id)

    apply([Complete(agent_id=agent_id, fence=1, result="x" * 500) for agent_id in ids])

    assert set(Activity.objects.values_list("status", "result")) == {(Status.COMPLETE, "x" * 500)}
    lines = ActivityLog.objects.filter(status=Status.COMPLETE)
    assert list(lines.order_by("id").values_list("activity_id", flat=True)) == ids
