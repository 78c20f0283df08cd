"""Results: awaited by notification, read from the row, in the declared type."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import override_settings
from pydantic import BaseModel, ConfigDict, Field
from redis import Redis

from django_agentexec import (
    ActivityNotFound,
    InvalidOption,
    ResultError,
    ResultTimeout,
    Run,
    Status,
    TaskCanceled,
    TaskFailed,
    activity,
    agather,
    aget_result,
    gather,
    get_result,
    task,
)
from django_agentexec.activity import waiting
from django_agentexec.activity.waiting import watching
from django_agentexec.models import Activity, WaitingFor
from django_agentexec.queues import Ack, Outcome, get_queue
from django_agentexec.tasks import AnyTask, registry
from tests.support.activity_rows import claim, complete, fail, row, start
from tests.support.approval_rows import waiting as waiting_for_decision
from tests.support.pool_process import until
from tests.support.servers import Valkey
from tests.support.waits import awaited
from tests.testapp.agents import Report, Text, report, shout

pytestmark = pytest.mark.django_db(transaction=True)

UNREACHABLE = {"agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}


@pytest.fixture(autouse=True)
def only_notifications(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A caller that is not woken waits until the test has failed; no listener outlives the test."""
    monkeypatch.setattr(waiting, "RECHECK", 60.0)
    monkeypatch.setattr(waiting, "LISTEN_SLICE", 0.05)
    yield
    until(is_quiet, "the end of the listening thread")


def is_quiet() -> bool:
    return "agentexec-results" not in {thread.name for thread in threading.enumerate()}


def completed(definition: AnyTask, value: Any) -> Run:
    """Enqueue, and end as a worker would with what its handler returned."""
    handle = definition.enqueue(Text())
    start(handle.agent_id)
    complete(handle.agent_id, result=json.loads(definition.store_result(value)))
    return handle


class Meanwhile:
    """Runs something in a thread as soon as somebody awaits the activity."""

    def __init__(self, agent_id: UUID, function: Callable[[], object]) -> None:
        self._agent_id, self._function = agent_id, function
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)

    def _run(self) -> None:
        try:
            until(lambda: self._agent_id in awaited(), "a waiter")
            self._function()
        finally:
            connections.close_all()


def end_as_a_worker(agent_id: UUID) -> None:
    (claimed,) = claim()
    start(agent_id, claimed.fence)
    complete(agent_id, claimed.fence, result="X")
    get_queue().ack_and_claim("default", "w", [Ack(claimed, Outcome.DONE)])


def test_a_waiter_is_woken_by_the_end() -> None:
    handle = shout.enqueue(Text(text="x"))

    with Meanwhile(handle.agent_id, lambda: end_as_a_worker(handle.agent_id)):
        assert get_result(handle, timeout=20) == "X"


def test_a_waiter_is_woken_by_a_cancel() -> None:
    handle = shout.enqueue(Text())

    with Meanwhile(handle.agent_id, lambda: activity.cancel(handle.agent_id)), pytest.raises(TaskCanceled):
        get_result(handle, timeout=20)


def test_a_waiter_is_woken_by_the_end_of_a_run_by_hand() -> None:
    agent_id = activity.create("import")

    with Meanwhile(agent_id, lambda: activity.complete(agent_id, result=3)):
        assert get_result(agent_id, timeout=20) == 3


async def test_an_async_waiter_is_woken_by_the_end() -> None:
    handle = await shout.aenqueue(Text(text="x"))

    with Meanwhile(handle.agent_id, lambda: end_as_a_worker(handle.agent_id)):
        assert await aget_result(handle, timeout=20) == "X"


def test_nobody_listens_after_the_last_waiter() -> None:
    with pytest.raises(TimeoutError):
        get_result(shout.enqueue(Text()), timeout=0.01)

    until(is_quiet, "the end of the listening thread")
    assert not awaited()


def test_an_unreachable_queue_leaves_the_row_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "RECHECK", 0.01)
    handle = shout.enqueue(Text())

    with (
        override_settings(CACHES=UNREACHABLE),
        Meanwhile(handle.agent_id, lambda: activity.cancel(handle.agent_id)),
        pytest.raises(TaskCanceled),
    ):
        get_result(handle, timeout=20)


# Outcomes


def test_a_result_survives_the_queue() -> None:
    handle = completed(shout, "X")
    get_queue().clear()

    assert get_result(handle, timeout=0) == "X"


def test_a_failure_tells_error_attempts_and_traceback() -> None:
    handle = shout.enqueue(Text())
    start(handle.agent_id)
    fail(handle.agent_id, error="ValueError: no", traceback="Traceback ...")

    with pytest.raises(TaskFailed, match=r"failed after 1 attempt\(s\): ValueError: no") as failed:
        get_result(handle)

    assert (failed.value.agent_id, failed.value.attempts) == (handle.agent_id, 1)
    assert (failed.value.error, failed.value.traceback) == ("ValueError: no", "Traceback ...")


def test_a_timeout_leaves_the_activity_alone() -> None:
    handle = shout.enqueue(Text())

    with pytest.raises(TimeoutError, match=r"0\.01 s; it is still queued; does a pool serve queue 'default'\?"):
        get_result(handle, timeout=0.01)

    assert row(handle.agent_id).status == "queued"


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"run_after": datetime(2100, 1, 1, tzinfo=UTC)}, "it is queued and due at 2100-01-01 00:00:00+00:00."),
        ({"status": Status.RUNNING}, "it is still running."),
        ({"status": Status.RUNNING, "blocking_child_id": uuid4()}, "is suspended and waits for its child activities."),
        (
            {"status": Status.RUNNING, "blocking_child_id": uuid4(), "waiting_for": WaitingFor.BUDGET},
            "is suspended and waits for a budget.",
        ),
    ],
)
def test_a_timeout_names_the_state(values: dict[str, Any], state: str) -> None:
    handle = shout.enqueue(Text())
    Activity.objects.filter(pk=handle.agent_id).update(**values)

    with pytest.raises(ResultTimeout) as late:
        get_result(handle, timeout=0.01)

    assert str(late.value).endswith(state)


async def test_an_async_timeout() -> None:
    with pytest.raises(TimeoutError, match="it is still queued"):
        await aget_result(await shout.aenqueue(Text()), timeout=0.01)


@pytest.mark.parametrize("agent_id", [uuid4(), "nonsense"], ids=["unknown", "nonsense"])
def test_an_unknown_activity_is_not_found(agent_id: Any) -> None:
    with pytest.raises(ActivityNotFound):
        get_result(agent_id)


def test_an_id_may_be_text() -> None:
    assert get_result(str(completed(shout, "X").agent_id)) == "X"  # type: ignore[arg-type]  # as from a URL


# Types


class Aliased(BaseModel):
    model_config = ConfigDict(strict=True)
    id: UUID
    company_name: str = Field(default="", alias="companyName")


CASES: list[tuple[Any, Any]] = [
    (Report, Report(title="t", words=1)),
    (list[Report], [Report(title="t", words=1)]),
    (str, "text"),
    (None, None),
    (dict[int, tuple[str, ...]], {1: ("a",)}),
    (Aliased | None, Aliased(id=UUID(int=7), companyName="Acme")),
]


@pytest.fixture
def typed() -> Callable[[Any], AnyTask]:
    def make(result_type: Any) -> AnyTask:
        def handler(agent_id: UUID, context: Text): ...  # type: ignore[no-untyped-def]  # annotated below

        handler.__annotations__["return"] = result_type
        return task("typed")(handler)

    return make


@pytest.mark.parametrize(("result_type", "value"), CASES, ids=lambda case: str(case)[:40])
def test_a_result_comes_back_in_its_type(typed: Any, result_type: Any, value: Any) -> None:
    assert get_result(completed(typed(result_type), value)) == value


def test_a_result_of_a_task_that_is_gone_comes_back_as_json(typed: Any) -> None:
    handle = completed(typed(Report), Report(title="t", words=1))
    registry.unregister("typed")

    assert get_result(handle) == {"title": "t", "words": 1}


def test_a_result_that_does_not_fit_its_type_any_more_says_so(typed: Any) -> None:
    handle = completed(typed(str), "text")
    typed(int)

    with pytest.raises(ResultError, match="does not fit its type") as refusal:
        get_result(handle)
    assert "input_value" not in str(refusal.value)


# Several


def test_gather_returns_results_in_order() -> None:
    handles = [completed(shout, "A"), completed(report, Report(title="t", words=1)), completed(shout, "C")]

    assert gather(*handles) == ("A", Report(title="t", words=1), "C")


def test_gather_has_one_timeout_for_all() -> None:
    handles = [completed(shout, "A"), shout.enqueue(Text()), shout.enqueue(Text())]
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        gather(*handles, timeout=1.0)

    assert time.monotonic() - began < 2.0


async def test_agather_raises_for_the_first_in_order_and_leaves_nobody_waiting() -> None:
    failed, canceled = await shout.aenqueue(Text()), await shout.aenqueue(Text())
    await activity.acancel(canceled.agent_id)
    await asyncio.to_thread(_fail, failed.agent_id)

    with pytest.raises(TaskFailed):
        await agather(failed, canceled, await shout.aenqueue(Text()))

    assert not awaited()


def _fail(agent_id: UUID) -> None:
    start(agent_id)
    fail(agent_id)
    connections.close_all()


def test_a_waiter_whose_loop_is_gone_does_not_deafen_the_others() -> None:
    handle = shout.enqueue(Text())
    loop = asyncio.new_event_loop()
    loop.close()
    event = asyncio.Event()

    def wake() -> None:
        waiting._wake(loop, event)

    with watching(handle.agent_id, wake), Meanwhile(handle.agent_id, lambda: end_as_a_worker(handle.agent_id)):
        assert get_result(handle, timeout=20) == "X"


def test_a_connection_that_is_cut_under_a_waiter_leaves_the_row_to_look_at(
    monkeypatch: pytest.MonkeyPatch, valkey: Valkey
) -> None:
    monkeypatch.setattr(waiting, "RECHECK", 0.01)
    handle = shout.enqueue(Text())

    def cut_and_cancel() -> None:
        with Redis(unix_socket_path=str(valkey.socket)) as client:
            client.client_kill_filter(_type="pubsub")
        activity.cancel(handle.agent_id)

    with Meanwhile(handle.agent_id, cut_and_cancel), pytest.raises(TaskCanceled):
        get_result(handle, timeout=20)


def test_a_waiter_hears_of_the_end_after_the_connection_was_cut(
    monkeypatch: pytest.MonkeyPatch, valkey: Valkey
) -> None:
    monkeypatch.setattr(waiting, "RETRY_PAUSE", 0.01)
    handle, looked = shout.enqueue(Text()), list[str]()

    def look(execute: Any, sql: str, *args: Any) -> Any:
        looked.append(sql)
        return execute(sql, *args)

    def cut_and_end() -> None:
        until(lambda: len(looked) > 1, "the listener's first call")
        with Redis(unix_socket_path=str(valkey.socket)) as client:
            client.client_kill_filter(_type="pubsub")
        until(lambda: len(looked) > 2, "the next listener's first call")
        end_as_a_worker(handle.agent_id)

    with Meanwhile(handle.agent_id, cut_and_end), connection.execute_wrapper(look):
        assert get_result(handle, timeout=20) == "X"


def test_a_server_that_accepts_and_says_nothing_costs_no_more_than_the_time_allowed() -> None:
    handles = [shout.enqueue(Text()) for _ in range(4)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        caches = {"agentexec": {**UNREACHABLE["agentexec"], "LOCATION": location}}
        with override_settings(CACHES=caches, AGENTEXEC={**settings.AGENTEXEC, "REDIS_TIMEOUT": 3.0}):
            began = time.monotonic()
            for handle in handles:
                with pytest.raises(TimeoutError):
                    get_result(handle, timeout=0.05)
            assert time.monotonic() - began < 2.0


def test_who_was_canceled_before_the_wait_began_leaves_nothing_behind() -> None:
    wish = watching(uuid4(), threading.Event().set)
    wish.__exit__()

    wish.__enter__()

    assert not awaited()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_listens_by_itself() -> None:
    handle = shout.enqueue(Text())

    with watching(handle.agent_id, threading.Event().set):
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a lock that the parent's thread held would never be free
            try:
                watching(uuid4(), threading.Event().set).__enter__()
            finally:
                os._exit(is_quiet())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_wait_inside_the_transaction_of_the_enqueue_would_never_end() -> None:
    with transaction.atomic():
        handle = shout.enqueue(Text())

        with pytest.raises(TransactionManagementError, match="not committed"):
            get_result(handle, timeout=5)


async def test_an_async_wait_inside_the_transaction_of_the_enqueue_would_never_end() -> None:
    def enqueue_and_wait() -> None:
        with transaction.atomic():
            handle = shout.enqueue(Text())
            async_to_sync(aget_result)(handle, timeout=5)

    with pytest.raises(TransactionManagementError, match="not committed"):
        await sync_to_async(enqueue_and_wait)()


def test_a_wait_inside_another_transaction() -> None:
    handle = completed(shout, "HI")

    with transaction.atomic():
        report.enqueue(Text())

        assert get_result(handle, timeout=1) == "HI"


# Waits that cannot end, and limits


@pytest.mark.parametrize("timeout", [None, timedelta(seconds=5), 5])
def test_a_time_limit_is_seconds_a_timedelta_or_none(timeout: Any) -> None:
    handle = completed(shout, "HI")

    assert get_result(handle, timeout=timeout) == "HI"
    assert gather(handle, timeout=timeout) == ("HI",)
    assert async_to_sync(aget_result)(handle, timeout=timeout) == "HI"
    assert async_to_sync(agather)(handle, timeout=timeout) == ("HI",)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True, timedelta(seconds=-1)])
def test_an_impossible_time_limit_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidOption, match="None to wait without a limit"):
        get_result(completed(shout, "HI"), timeout=timeout)


def test_a_timedelta_that_has_passed_is_a_timeout() -> None:
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        get_result(shout.enqueue(Text()), timeout=timedelta(milliseconds=50))


@pytest.mark.parametrize(("kind", "awaited"), [("approval", "approval"), ("question", "answer")])
def test_a_timeout_says_that_a_person_has_to_decide(kind: str, awaited: str) -> None:
    (request,) = waiting_for_decision({"kind": kind})

    with pytest.raises(TimeoutError, match=f"waits for a person's {awaited}"):
        get_result(request.activity_id, timeout=0)
    with pytest.raises(TimeoutError, match=f"waits for a person's {awaited}"):
        async_to_sync(aget_result)(request.activity_id, timeout=0)


def test_a_list_of_runs_is_to_be_unpacked() -> None:
    runs = [completed(shout, "HI")]

    with pytest.raises(TypeError, match=r"gather\(\*runs\)"):
        gather(runs)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match=r"gather\(\*runs\)"):
        async_to_sync(agather)(runs)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="await the call that returned this coroutine"):
        get_result(shout.aenqueue(Text()))  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="what `enqueue` or `spawn` returned"):
        get_result(7)  # type: ignore[arg-type]  # the mistake
