"""Enqueue: the row in the caller's transaction, the push after the commit, nothing written on bad input."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, connections, transaction
from django.test import override_settings
from django.utils import timezone
from pydantic import BaseModel, ConfigDict, Field, field_serializer

from django_agentexec import (
    ActivityNotFound,
    AgentExecError,
    ContextTooLarge,
    InvalidContext,
    InvalidOption,
    Priority,
    Status,
    Task,
    UnknownTask,
    aenqueue,
    enqueue,
    enqueue_many,
    get_result,
)
from django_agentexec.models import Activity, ActivityLog
from django_agentexec.queues import get_queue
from django_agentexec.queues.memory import MemoryQueue
from django_agentexec.tasks import AnyTask
from tests.support.activity_rows import claimed_ids, messages, row
from tests.testapp.agents import Keyed, Text, keyed, report, shout

pytestmark = pytest.mark.django_db(transaction=True)

UNREACHABLE = {"agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}


def test_an_enqueue_writes_the_row_its_first_line_and_the_message() -> None:
    handle = shout.enqueue(Text(text="x"), metadata={"organization_id": "org-1"})

    stored = row(handle.agent_id)
    assert (stored.agent_type, stored.status, stored.queue) == ("shout", Status.QUEUED, "default")
    assert (stored.context, stored.metadata) == ({"text": "x"}, {"organization_id": "org-1"})
    assert messages(handle.agent_id) == ["Waiting to start."]
    assert claimed_ids() == [handle.agent_id]


def test_metadata_that_is_as_deep_as_it_may_be_is_written() -> None:
    metadata: dict[str, Any] = {}
    for _ in range(252):
        metadata = {"a": metadata}

    handle = shout.enqueue(Text(), metadata=metadata)
    with pytest.raises(InvalidOption):
        shout.enqueue(Text(), metadata={"a": metadata})

    assert row(handle.agent_id).metadata == metadata


def test_the_handle_knows_where_the_status_is() -> None:
    handle = shout.enqueue(Text())

    assert (handle.agent_type, handle.created) == ("shout", True)
    assert handle.status_url == f"/agents/activities/{handle.agent_id}/"


def test_a_task_can_be_enqueued_by_its_name() -> None:
    assert row(enqueue("shout", Text()).agent_id).agent_type == "shout"


async def test_an_enqueue_from_async_code() -> None:
    handle = await shout.aenqueue(Text(text="x"))
    by_name = await aenqueue("shout", Text(text="y"))
    many = await shout.aenqueue_many([Text(), Text()])

    assert (
        await Activity.objects.filter(
            agent_id__in=[handle.agent_id, by_name.agent_id, *(one.agent_id for one in many)]
        ).acount()
        == 4
    )


@pytest.mark.parametrize("verb", [enqueue, lambda task, context, **options: enqueue_many(task, [context], **options)])
def test_a_misspelled_option_is_named_with_the_one_that_was_meant(verb: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"no option 'dealy'\. Did you mean 'delay'\?"):
        verb("shout", Text(), dealy=1)

    assert not Activity.objects.exists()


# Transactions


async def test_a_call_without_a_context_names_the_task_and_the_remedy() -> None:
    with pytest.raises(
        TypeError, match=r"enqueue\(\) of task 'keyed' takes a context, .*: enqueue\(Keyed\(key=...\)\)"
    ):
        keyed.enqueue(text="a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"aenqueue\(\) of task 'shout' takes a context, .*: aenqueue\(Text\(\)\)"):
        await shout.aenqueue(text="a")  # type: ignore[call-arg]


def test_a_dictionary_instead_of_a_context_names_the_remedy() -> None:
    with pytest.raises(InvalidContext, match=r"takes a Keyed, not dict .*\. Pass Keyed\(key=...\)\."):
        keyed.enqueue({"key": "a"})  # type: ignore[arg-type]


def test_methods_of_celery_name_the_replacement() -> None:
    for name in ("delay", "apply_async"):
        with pytest.raises(AttributeError, match=r"Task 'keyed' has no method .*\.enqueue\(Keyed\(key=...\)\)"):
            getattr(keyed, name)
    with pytest.raises(AttributeError, match="'Task' object has no attribute 'nothing'"):
        getattr(keyed, "nothing")  # noqa: B009  # a type checker would refuse the attribute
    assert copy(keyed).name == "keyed"


def test_within_a_transaction_the_id_is_there_before_the_commit_and_the_message_after() -> None:
    with transaction.atomic():
        handle = shout.enqueue(Text())
        before = get_queue().missing("default", [handle.agent_id])

    assert before == [handle.agent_id]
    assert claimed_ids() == [handle.agent_id]


def test_the_error_about_a_missing_activity_names_the_rollback() -> None:
    with transaction.atomic():
        handle = shout.enqueue(Text())
        transaction.set_rollback(True)

    with pytest.raises(ActivityNotFound, match="deleted, or the transaction that enqueued it was rolled back"):
        get_result(handle, timeout=0)


def test_a_rollback_leaves_no_row_and_no_message() -> None:
    with transaction.atomic():
        shout.enqueue(Text())
        transaction.set_rollback(True)

    assert not Activity.objects.exists()
    assert not ActivityLog.objects.exists()
    assert claimed_ids() == []


def test_a_rollback_to_a_savepoint_takes_its_own_enqueues_only() -> None:
    with transaction.atomic():
        kept = shout.enqueue(Text())
        with transaction.atomic():
            shout.enqueue(Text())
            transaction.set_rollback(True)

    assert claimed_ids() == [kept.agent_id]
    assert Activity.objects.count() == 1


def test_an_unreachable_queue_keeps_the_row_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(CACHES=UNREACHABLE):
        handle = shout.enqueue(Text())

    assert row(handle.agent_id).status == Status.QUEUED
    assert "the reconciler of a pool pushes it" in caplog.text


def test_a_queue_that_refuses_the_message_does_not_fail_the_committed_enqueue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = get_queue().client  # type: ignore[attr-defined]  # the Redis queue's
    ran: list[str] = []
    client.set("{agentexec:default}:meta", "no hash")  # the server answers, with an error

    with transaction.atomic():
        handle = shout.enqueue(Text())
        transaction.on_commit(lambda: ran.append("the caller's own"))

    assert row(handle.agent_id).status == Status.QUEUED
    assert ran == ["the caller's own"]
    assert "WRONGTYPE" in caplog.text


# Options


def test_high_priority_goes_first_and_equals_in_order() -> None:
    low = shout.enqueue(Text(), priority=Priority.LOW)
    first = shout.enqueue(Text(), priority=Priority.NORMAL)
    second = shout.enqueue(Text())
    urgent = shout.enqueue(Text(), priority=Priority.HIGH)

    assert claimed_ids() == [handle.agent_id for handle in (urgent, first, second, low)]


def test_a_delay_is_kept_in_row_and_queue() -> None:
    handle = shout.enqueue(Text(), delay=timedelta(hours=1))

    due = row(handle.agent_id).run_after
    assert due is not None
    assert timedelta(minutes=59) < due - timezone.now() <= timedelta(hours=1)
    assert (claimed_ids(), get_queue().stats("default").delayed) == ([], 1)


def test_a_due_time_in_the_past_is_at_once() -> None:
    handle = shout.enqueue(Text(), run_after=datetime(2020, 1, 1, tzinfo=UTC))

    assert claimed_ids() == [handle.agent_id]


def test_a_queue_may_be_named() -> None:
    handle = shout.enqueue(Text(), queue="slow")

    assert row(handle.agent_id).queue == "slow"
    assert (claimed_ids(), claimed_ids(queue="slow")) == ([], [handle.agent_id])


def test_a_queue_that_is_not_declared_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    shout.enqueue_many([Text()] * 2, queue="defautl")
    shout.enqueue(Text(), queue="defautl")
    shout.enqueue(Text(), queue="default")

    (record,) = [record for record in caplog.records if "QUEUES" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert "Task 'shout': queue 'defautl' is not in AGENTEXEC['QUEUES'] (default)" in record.getMessage()
    assert record.getMessage().endswith("Did you mean 'default'?")


def test_a_declared_queue_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(AGENTEXEC={"QUEUES": ["default", "nightly"]}):
        shout.enqueue(Text(), queue="nightly")

    assert caplog.records == []


def test_a_lock_key_is_on_the_row_and_holds_the_second_back() -> None:
    first = keyed.enqueue(Keyed(key="a"))
    keyed.enqueue(Keyed(key="a"))
    other = keyed.enqueue(Keyed(key="b"))

    assert row(first.agent_id).lock_key == "key:a"
    assert claimed_ids() == [first.agent_id, other.agent_id]


# In bulk


def test_many_are_enqueued_in_their_order() -> None:
    handles = keyed.enqueue_many([Keyed(key=str(number), number=number) for number in range(50)], metadata={"a": 1})

    assert claimed_ids(50) == [handle.agent_id for handle in handles]
    assert [row(handle.agent_id).context["number"] for handle in handles] == list(range(50))
    assert Activity.objects.for_metadata(a=1).count() == 50


def test_many_of_nothing_is_nothing() -> None:
    assert enqueue_many("shout", []) == []


def test_one_bad_context_among_many_writes_nothing() -> None:
    with pytest.raises(InvalidContext):
        shout.enqueue_many([Text(), Keyed(key="a")])

    assert not Activity.objects.exists()


@pytest.mark.parametrize("count", [1, 100])
def test_an_enqueue_takes_a_statement_or_two(count: int, django_assert_num_queries: Any) -> None:
    # PostgreSQL writes row and line by one.
    savepoint = 2
    with transaction.atomic(), django_assert_num_queries(savepoint + (1 if connection.vendor == "postgresql" else 2)):
        shout.enqueue_many([Text()] * count)


def test_an_enqueue_outside_of_a_transaction_takes_no_more(django_assert_num_queries: Any) -> None:
    # SQLite adds BEGIN and COMMIT, which cost it no round trip; on PostgreSQL the statement commits itself.
    with django_assert_num_queries(1 if connection.vendor == "postgresql" else 4):
        handle = shout.enqueue(Text())
    assert claimed_ids() == [handle.agent_id]


# Bad input


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    id: UUID
    at: datetime


class Aliased(BaseModel):
    company_name: str = Field(alias="companyName")
    other: str = Field(default="", validation_alias="somethingElse")


class Lossy(BaseModel):
    needed: int = Field(exclude=True)


class Numbers(BaseModel):
    value: float


class Explosive(BaseModel):
    value: int

    @field_serializer("value")
    def serialize(self, value: int) -> int:
        raise KeyError(value)


def definition(context_type: type[BaseModel]) -> AnyTask:
    def handler(agent_id: UUID, context: Any) -> None: ...

    handler.__annotations__["context"] = context_type
    return Task("local", handler)


BAD: list[tuple[Any, Any, dict[str, Any], type[AgentExecError]]] = [
    ("shuot", Text(), {}, UnknownTask),
    (print, Text(), {}, UnknownTask),
    (shout, {"text": "x"}, {}, InvalidContext),
    (shout, None, {}, InvalidContext),
    (shout, Keyed(key="a"), {}, InvalidContext),
    (shout, Text(text="x" * 1_000_001), {}, ContextTooLarge),
    (shout, Text(text="\x00"), {}, InvalidContext),
    (shout, Text(text="\ud800"), {}, InvalidContext),
    (definition(Lossy), Lossy(needed=1), {}, InvalidContext),
    (definition(Numbers), Numbers(value=float("nan")), {}, InvalidContext),
    (definition(Explosive), Explosive(value=1), {}, InvalidContext),
    (keyed, Keyed(key="k" * 500), {}, InvalidContext),
    (shout, Text(), {"metadata": {"a": object()}}, InvalidOption),
    (shout, Text(), {"metadata": {"a": "\ud800"}}, InvalidOption),
    (shout, Text(), {"metadata": ["a"]}, InvalidOption),
    (shout, Text(), {"priority": 3}, InvalidOption),
    (shout, Text(), {"queue": "a b"}, InvalidOption),
    (shout, Text(), {"delay": -1}, InvalidOption),
    (shout, Text(), {"run_after": datetime(2027, 1, 1)}, InvalidOption),
    (shout, Text(), {"idempotency_key": ""}, InvalidOption),
    (shout, Text(), {"idempotency_key": "x" * 256}, InvalidOption),
]


@pytest.mark.parametrize(("task", "context", "options", "error"), BAD, ids=range(len(BAD)))
def test_bad_input_writes_nothing(task: Any, context: Any, options: Any, error: type[AgentExecError]) -> None:
    with pytest.raises(error):
        enqueue(task, context, **options)

    assert not Activity.objects.exists()
    assert claimed_ids() == []


def test_an_unknown_option_writes_nothing() -> None:
    with pytest.raises(TypeError, match="prio"):
        shout.enqueue(Text(), prio=1)  # type: ignore[call-arg]  # the mistake

    assert not Activity.objects.exists()


def test_text_that_only_looks_like_a_nul_is_stored() -> None:
    assert row(shout.enqueue(Text(text=r"a\u0000")).agent_id).context == {"text": r"a\u0000"}


@pytest.mark.parametrize(
    "context",
    [
        Strict(id=UUID(int=7), at=datetime(2026, 1, 1, tzinfo=UTC)),
        Aliased(companyName="Acme", somethingElse="x"),  # type: ignore[call-arg]  # mypy needs pydantic's plugin
    ],
    ids=["strict", "aliased"],
)
def test_a_context_comes_back_as_it_was(context: BaseModel) -> None:
    local = definition(type(context))
    handle = enqueue(local, context)

    assert local.load_context(json.dumps(row(handle.agent_id).context)) == context


# Idempotency


def test_the_same_key_returns_the_first_activity() -> None:
    first = shout.enqueue(Text(text="a"), idempotency_key="k")
    second = shout.enqueue(Text(text="b"), idempotency_key="k")

    assert (second.agent_id, second.created) == (first.agent_id, False)
    assert Activity.objects.get().context == {"text": "a"}
    assert claimed_ids() == [first.agent_id]


def test_the_same_key_of_another_task_is_another_activity() -> None:
    assert shout.enqueue(Text(), idempotency_key="k").agent_id != report.enqueue(Text(), idempotency_key="k").agent_id


def test_the_same_key_within_one_transaction() -> None:
    with transaction.atomic():
        first = shout.enqueue(Text(), idempotency_key="k")
        second = shout.enqueue(Text(), idempotency_key="k")
        # The transaction is still of use.
        third = shout.enqueue(Text())

    assert first.agent_id == second.agent_id
    assert set(claimed_ids()) == {first.agent_id, third.agent_id}


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite lets one transaction write at a time")
def test_two_that_race_for_one_key_get_the_same_activity() -> None:
    inserted, found = threading.Event(), []

    def late() -> None:
        inserted.wait(10)
        try:
            with transaction.atomic():
                found.append(shout.enqueue(Text(), idempotency_key="k"))
                found.append(shout.enqueue(Text()))  # its transaction survived the conflict
        finally:
            connections.close_all()

    thread = threading.Thread(target=late)
    thread.start()
    with transaction.atomic():
        first = shout.enqueue(Text(), idempotency_key="k")
        inserted.set()
        _until_somebody_waits_for_a_lock()
    thread.join(10)

    assert [handle.created for handle in found] == [False, True]
    assert found[0].agent_id == first.agent_id


def _until_somebody_waits_for_a_lock() -> None:
    from tests.support.pool_process import until

    def waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return bool(cursor.fetchone()[0])

    until(waits, "a blocked insert")


# Backends that can do less


class Plain(MemoryQueue):
    supports_delay = supports_priority = supports_partitions = False


@pytest.mark.parametrize(
    ("enqueue_it", "what"),
    [
        (lambda: shout.enqueue(Text(), delay=1), "delays"),
        (lambda: shout.enqueue(Text(), priority=Priority.HIGH), "priorities"),
        (lambda: keyed.enqueue(Keyed(key="a")), "lock keys"),
    ],
)
def test_what_the_backend_cannot_do_is_refused(enqueue_it: Callable[[], object], what: str) -> None:
    with (
        override_settings(AGENTEXEC={"QUEUE_BACKEND": f"{__name__}.Plain"}),
        pytest.raises(InvalidOption, match=f"the queue backend Plain does not support {what}"),
    ):
        enqueue_it()

    assert not Activity.objects.exists()
