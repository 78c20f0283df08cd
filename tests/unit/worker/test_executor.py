"""One attempt, without rows: what a handler does, and the operation that comes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings
from pydantic import BaseModel, field_validator

from django_agentexec import Attempt, StaleAttempt, task
from django_agentexec.activity.suspension import Suspend, Suspended
from django_agentexec.activity.transitions import Complete, Fail, Operation, OwnedOperation, Release
from django_agentexec.models import Activity
from django_agentexec.queues import Claim
from django_agentexec.tasks import registry
from django_agentexec.tasks.state import Write
from django_agentexec.validation import MAX_ERROR
from django_agentexec.worker.executor import MAX_TRACEBACK, Execution, Stop
from tests.support.attempts import worker_attempt
from tests.support.pool_process import until

ID = UUID(int=7)
NAME = "executor-test"


class Text(BaseModel):
    text: str = ""

    @field_validator("text")
    @classmethod
    def explode(cls, text: str) -> str:
        if text == "explode":
            raise KeyError(text)
        return text


class Report(BaseModel):
    title: str


class Letter(BaseModel):
    language: str
    pages: int


class PlainCalls:
    """Calls as a worker does, without connections to close."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(2)

    @asynccontextmanager
    async def around_async(self) -> AsyncIterator[None]:
        yield

    def call_sync(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)


@pytest.fixture(autouse=True)
def forget_the_task() -> Iterator[None]:
    yield
    registry.unregister(NAME)


@pytest.fixture
def calls() -> Iterator[PlainCalls]:
    calls = PlainCalls()
    yield calls
    calls.threads.shutdown()


def write(operation: Operation) -> Future[Activity]:
    future: Future[Activity] = Future()
    future.set_result(Activity(agent_id=ID))
    return future


def execution(calls: PlainCalls, context: Any = None, name: str = NAME, submit: Write = write) -> Execution:
    row = Activity(agent_id=ID, agent_type=name, context=context or {}, attempt=1, max_retries=3, queue="default")
    return Execution(Claim(ID, 5, 0, "default", ""), row, submit, calls)


async def outcome(calls: PlainCalls, handler: Callable[..., Any], **options: Any) -> OwnedOperation | None:
    task(NAME, **options)(handler)
    return await execution(calls).run()


async def failure(calls: PlainCalls, handler: Callable[..., Any], **options: Any) -> Fail:
    ended = await outcome(calls, handler, **options)
    assert isinstance(ended, Fail)
    return ended


async def test_what_a_handler_returns_is_its_result(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> Report:
        return Report(title="t")

    assert await outcome(calls, handler) == Complete(agent_id=ID, fence=5, result={"title": "t"})


async def test_a_sync_handler_runs_in_a_thread(calls: PlainCalls) -> None:
    def handler(agent_id: UUID, context: Text) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await outcome(calls, handler) == Complete(agent_id=ID, fence=5, result=False)


async def test_a_handler_gets_its_attempt_if_it_wants(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text, attempt: Attempt) -> list[Any]:
        return [attempt.number, attempt.fence, attempt.idempotency_key, attempt.canceled]

    assert await outcome(calls, handler) == Complete(agent_id=ID, fence=5, result=[1, 5, str(ID), False])


async def test_an_error_is_retried_after_its_backoff(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise ValueError("a\nb")

    failed = await failure(calls, handler, backoff=lambda retry, error: 7.0)

    assert (failed.error, failed.retry_delay) == ("ValueError: a b", 7.0)
    assert 'raise ValueError("a\\nb")' in failed.traceback


async def test_an_error_to_give_up_on_is_final(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise ValueError("no")

    assert (await failure(calls, handler, give_up_on=[ValueError])).retry_delay is None


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseExceptionGroup])
@pytest.mark.parametrize("form", ["async", "sync"])
async def test_an_exit_ends_the_attempt_and_not_the_worker(calls: PlainCalls, kind: Any, form: str) -> None:
    error = kind("bye", [SystemExit(1)]) if kind is BaseExceptionGroup else kind("bye")

    async def handler(agent_id: UUID, context: Text) -> None:
        raise error

    def sync_handler(agent_id: UUID, context: Text) -> None:
        raise error

    failed = await failure(calls, handler if form == "async" else sync_handler)

    assert failed.error.startswith(f"{kind.__name__}: bye")
    assert failed.retry_delay is not None


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_an_error_without_a_text_has_a_name_at_least(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise Unprintable

    assert (await failure(calls, handler)).error == "Unprintable: (its text cannot be made)"


async def test_a_broken_backoff_does_not_keep_the_activity(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise ValueError("no")

    def broken(retry: int, error: BaseException) -> float:
        raise ZeroDivisionError

    assert (await failure(calls, handler, backoff=broken)).retry_delay is not None


async def test_huge_errors_are_cut(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise ValueError("x" * 200_000 + "the end")

    failed = await failure(calls, handler)

    assert (len(failed.error), len(failed.traceback)) == (MAX_ERROR, MAX_TRACEBACK)
    assert failed.traceback.endswith("the end\n")


# Results


async def test_a_result_of_another_type_is_final(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> Report:
        return "no report"  # type: ignore[return-value]  # the mistake

    failed = await failure(calls, handler)

    assert "returned str, which does not fit its return annotation" in failed.error
    assert failed.retry_delay is None


async def test_a_result_that_is_no_json_is_final(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text):  # type: ignore[no-untyped-def]  # anything may come
        return object()

    failed = await failure(calls, handler)

    assert failed.retry_delay is None
    assert failed.error.endswith("Return a Pydantic model or JSON values.")


async def test_a_result_that_is_too_large_is_final(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> str:
        return "x" * 100

    with override_settings(AGENTEXEC={"MAX_RESULT_BYTES": 101}):
        failed = await failure(calls, handler)

    assert "has 102 bytes of JSON; the limit AGENTEXEC['MAX_RESULT_BYTES'] is 101" in failed.error
    assert failed.retry_delay is None


async def test_a_nul_does_not_cost_the_result(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> dict[str, str]:
        return {"a\x00": r"b\u0000" + "\x00"}

    ended = await outcome(calls, handler)

    assert ended == Complete(agent_id=ID, fence=5, result={"a\ufffd": "b\\u0000\ufffd"})


# Contexts and tasks


async def test_an_unknown_task_is_tried_again_later(calls: PlainCalls) -> None:
    ended = await execution(calls, name="of the next release").run()

    assert isinstance(ended, Fail)
    assert ended.error.startswith("UnknownTask")
    assert ended.retry_delay is not None


@pytest.mark.parametrize("context", [{"text": 5}, {"text": "explode"}, ["no object"]], ids=str)
async def test_a_stored_context_that_does_not_fit_any_more_is_final(calls: PlainCalls, context: Any) -> None:
    async def handler(agent_id: UUID, context: Text) -> None: ...

    task(NAME)(handler)

    ended = await execution(calls, context).run()

    assert isinstance(ended, Fail)
    assert ended.retry_delay is None
    assert ended.error.startswith("InvalidContext: The stored context does not fit task 'executor-test': ")
    assert ended.error.endswith(". Retry it with a new context.")


async def test_an_error_about_a_stored_context_names_paths_and_no_values(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Letter) -> None: ...

    task(NAME)(handler)

    ended = await execution(calls, {"text": "a secret", "pages": "another secret"}).run()

    assert isinstance(ended, Fail)
    assert ended.error == (
        "InvalidContext: The stored context does not fit task 'executor-test': language: Field required; pages: Input "
        "should be a valid integer, unable to parse string as an integer. Retry it with a new context."
    )
    assert "secret" not in ended.traceback


# Stopping


async def forever(agent_id: UUID, context: Text) -> None:
    await asyncio.Event().wait()


async def test_an_async_handler_that_takes_too_long_is_canceled(calls: PlainCalls) -> None:
    failed = await failure(calls, forever, timeout=0.01)

    assert failed.error == "TimeoutError: The attempt took longer than 0.01 s."
    assert "asyncio.Event().wait()" in failed.traceback


async def test_a_sync_handler_that_takes_too_long_sees_it(calls: PlainCalls) -> None:
    def handler(agent_id: UUID, context: Text, attempt: Attempt) -> bool:
        until(lambda: attempt.canceled, "the time limit")
        return True

    failed = await failure(calls, handler, timeout=0.01)

    assert failed.error == "TimeoutError: The attempt took longer than 0.01 s."


@pytest.mark.parametrize(
    ("reason", "ended"),
    [(Stop.CANCELED, None), (Stop.LOST, None), (Stop.SHUTDOWN, Release(agent_id=ID, fence=5))],
)
async def test_an_async_handler_that_is_stopped(calls: PlainCalls, reason: Stop, ended: OwnedOperation | None) -> None:
    begun = asyncio.Event()

    async def handler(agent_id: UUID, context: Text) -> None:
        begun.set()
        await asyncio.Event().wait()

    task(NAME)(handler)
    running = execution(calls)
    attempt = asyncio.ensure_future(running.run())
    await begun.wait()

    running.stop(reason)

    assert await attempt == ended


@pytest.mark.parametrize("reason", [Stop.CANCELED, Stop.LOST])
async def test_a_sync_handler_that_is_stopped_has_nothing_more_to_say(calls: PlainCalls, reason: Stop) -> None:
    begun = threading.Event()

    def handler(agent_id: UUID, context: Text, attempt: Attempt) -> str:
        begun.set()
        until(lambda: attempt.canceled, "the stop")
        return "too late"

    task(NAME)(handler)
    running = execution(calls)
    attempt = asyncio.ensure_future(running.run())
    await asyncio.to_thread(begun.wait, 10)

    running.stop(reason)

    assert await attempt is None


class Unanswered:
    """A committer whose database does not answer; a handler that waits for it, and the error that it receives."""

    def __init__(self, calls: PlainCalls) -> None:
        self.written: Future[Activity] = Future()
        self.waits = threading.Event()
        self.heard: list[str] = []
        task(NAME)(self.handler)
        self.execution = execution(calls, submit=self.submit)

    def submit(self, operation: Operation) -> Future[Activity]:
        self.waits.set()
        return self.written

    def handler(self, agent_id: UUID, context: Text, attempt: Attempt) -> None:
        try:
            worker_attempt(ID, 1, 5, attempt.write, outer=attempt).progress("so far")  # as a step of a pipeline does
            self.heard.append("written")
        except StaleAttempt as error:
            self.heard.append(str(error))
            raise

    async def begin(self) -> asyncio.Task[OwnedOperation | None]:
        attempt = asyncio.create_task(self.execution.run())
        await asyncio.to_thread(self.waits.wait, 10)
        return attempt


@pytest.mark.parametrize("before", [None, Stop.SHUTDOWN, Stop.TIMEOUT])
async def test_a_lost_lease_ends_a_sync_write_that_waits(calls: PlainCalls, before: Stop | None) -> None:
    unanswered = Unanswered(calls)
    attempt = await unanswered.begin()

    if before:
        unanswered.execution.stop(before)
    unanswered.execution.stop(Stop.LOST)

    assert await attempt is None
    assert "may belong to another worker" in unanswered.heard[0]
    assert not unanswered.written.cancelled()  # its fence decides
    assert unanswered.execution.is_lost


@pytest.mark.parametrize("reason", [Stop.CANCELED, Stop.SHUTDOWN, Stop.TIMEOUT])
async def test_nothing_else_does(calls: PlainCalls, reason: Stop) -> None:
    unanswered = Unanswered(calls)
    attempt = await unanswered.begin()

    unanswered.execution.stop(reason)
    assert not unanswered.execution.attempt.lost.done()
    unanswered.written.set_result(Activity(agent_id=ID))
    await attempt

    assert unanswered.heard == ["written"]


async def test_a_clean_up_is_not_ended_by_the_same_reason_told_again(calls: PlainCalls) -> None:
    begun, cleaning, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    cleaned: list[UUID] = []

    async def handler(agent_id: UUID, context: Text) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await closed.wait()
            cleaned.append(agent_id)

    task(NAME)(handler)
    running = execution(calls)
    attempt = asyncio.ensure_future(running.run())
    await begun.wait()

    running.stop(Stop.CANCELED)
    await cleaning.wait()
    running.stop(Stop.CANCELED)  # as each heartbeat says it
    closed.set()

    assert await attempt is None
    assert cleaned == [ID]


async def test_a_shutdown_charges_nothing_for_a_clean_up_that_fails(calls: PlainCalls) -> None:
    begun = asyncio.Event()

    async def handler(agent_id: UUID, context: Text) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("the clean-up failed")

    task(NAME)(handler)
    running = execution(calls)
    attempt = asyncio.ensure_future(running.run())
    await begun.wait()

    running.stop(Stop.SHUTDOWN)

    assert await attempt == Release(agent_id=ID, fence=5)


async def test_a_handler_that_was_stopped_before_it_began_does_not_begin(calls: PlainCalls) -> None:
    begun: list[UUID] = []

    async def handler(agent_id: UUID, context: Text) -> None:
        begun.append(agent_id)

    task(NAME)(handler)
    running = execution(calls)
    running.stop(Stop.SHUTDOWN)

    assert (await running.run(), begun) == (Release(agent_id=ID, fence=5), [])


async def test_a_sync_handler_that_was_stopped_before_it_began_does_not_begin(calls: PlainCalls) -> None:
    begun: list[UUID] = []

    def handler(agent_id: UUID, context: Text) -> None:
        begun.append(agent_id)

    task(NAME)(handler)
    running = execution(calls)
    running.stop(Stop.SHUTDOWN)

    assert (await running.run(), begun) == (Release(agent_id=ID, fence=5), [])


async def test_a_sync_handler_that_is_stopped_while_it_waits_for_a_thread_does_not_begin(calls: PlainCalls) -> None:
    begun: list[UUID] = []

    def handler(agent_id: UUID, context: Text) -> None:
        begun.append(agent_id)

    task(NAME)(handler)
    running, may_go_on = execution(calls), threading.Event()
    others = [calls.call_sync(may_go_on.wait, 10) for _ in range(2)]  # all threads
    attempt = asyncio.create_task(running.run())
    await asyncio.sleep(0)
    assert calls.threads._work_queue.qsize()

    running.stop(Stop.LOST)
    may_go_on.set()

    assert (await attempt, begun) == (None, [])
    await asyncio.gather(*others)


async def test_who_waits_for_the_loss_cannot_hide_it(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text, attempt: Attempt) -> None:
        await asyncio.wrap_future(attempt.lost)

    task(NAME)(handler)
    running = execution(calls)
    attempt = asyncio.create_task(running.run())
    await asyncio.sleep(0)

    running.stop(Stop.SHUTDOWN)
    await attempt
    running.stop(Stop.LOST)

    assert running.attempt.lost.done()


async def test_a_handler_that_finds_itself_replaced_has_nothing_more_to_say(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise StaleAttempt("claimed again")

    assert await outcome(calls, handler) is None


async def test_a_handler_that_cancels_itself_has_failed(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise asyncio.CancelledError

    assert (await failure(calls, handler)).error.startswith("CancelledError")


async def test_the_last_failure_is_logged_as_an_error_with_its_traceback(
    calls: PlainCalls, caplog: pytest.LogCaptureFixture
) -> None:
    """Error trackers listen to errors: a failure that will be retried is none yet."""

    async def handler(agent_id: UUID, context: Text) -> None:
        raise ValueError("no luck")

    await outcome(calls, handler)
    registry.unregister(NAME)
    await outcome(calls, handler, give_up_on=[ValueError])

    retried, final = caplog.records
    assert (retried.levelname, retried.exc_info) == ("WARNING", None)
    assert final.levelname == "ERROR"
    assert final.exc_info is not None
    assert isinstance(final.exc_info[1], ValueError)


async def test_a_failure_after_the_last_retry_is_logged_as_an_error(
    calls: PlainCalls, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise ValueError("no luck")

    task(NAME)(handler)
    last = execution(calls)
    last.activity.retries = last.activity.max_retries
    await last.run()

    assert [record.levelname for record in caplog.records] == ["ERROR"]


# Parking

CHILD, OTHER = UUID(int=8), UUID(int=9)


async def test_a_handler_that_waits_for_others_is_parked(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise Suspended([CHILD])

    assert await outcome(calls, handler) == Suspend(agent_id=ID, fence=5, awaited_ids=[CHILD])


async def test_tasks_of_a_handler_that_wait_are_parked_together(calls: PlainCalls) -> None:
    async def waits_for(child: UUID) -> None:
        raise Suspended([child])

    async def handler(agent_id: UUID, context: Text) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_for(CHILD))
            group.create_task(waits_for(OTHER))

    ended = await outcome(calls, handler)

    assert isinstance(ended, Suspend)
    assert set(ended.awaited_ids) == {CHILD, OTHER}


async def test_an_error_beside_a_wait_is_an_error(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        raise BaseExceptionGroup("both", [Suspended([CHILD]), ValueError("no")])

    assert (await failure(calls, handler)).error.startswith("BaseExceptionGroup: both")


@pytest.mark.parametrize(("reason", "parks"), [(Stop.CANCELED, False), (Stop.LOST, False), (Stop.SHUTDOWN, True)])
async def test_a_handler_that_is_stopped_while_it_begins_to_wait(calls: PlainCalls, reason: Stop, parks: bool) -> None:
    begun = threading.Event()

    def handler(agent_id: UUID, context: Text, attempt: Attempt) -> None:
        begun.set()
        until(lambda: attempt.canceled, "the stop")
        raise Suspended([CHILD])

    task(NAME)(handler)
    running = execution(calls)
    attempt = asyncio.ensure_future(running.run())
    await asyncio.to_thread(begun.wait, 10)

    running.stop(reason)

    assert isinstance(await attempt, Suspend) is parks


# Handlers of unusual forms


async def test_a_stop_iteration_from_a_thread_is_an_error(calls: PlainCalls) -> None:
    def handler(agent_id: UUID, context: Text) -> int:
        return next(iter(()))

    failed = await asyncio.wait_for(failure(calls, handler), 10)

    assert failed.error == "RuntimeError: A call in a thread raised StopIteration: give next() a default."
    assert "return next(iter(()))" in failed.traceback


def undecorated(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not know of `async def`."""

    @wraps(handler)
    def wrapper(*arguments: Any) -> Any:
        return handler(*arguments)

    return wrapper


async def test_a_sync_decorator_around_an_async_handler_is_awaited(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> str:
        return threading.current_thread().name

    assert await outcome(calls, undecorated(handler)) == Complete(agent_id=ID, fence=5, result="MainThread")


async def test_such_a_handler_keeps_its_time_limit(calls: PlainCalls) -> None:
    async def handler(agent_id: UUID, context: Text) -> None:
        await asyncio.Event().wait()

    assert (await failure(calls, undecorated(handler), timeout=0.05)).error.startswith("TimeoutError")


@pytest.mark.parametrize("value", [10**5000, float("nan")], ids=["digits", "nan"])
async def test_a_result_that_cannot_be_stored_is_not_computed_again(calls: PlainCalls, value: Any) -> None:
    async def handler(agent_id: UUID, context: Text) -> Any:
        return value

    failed = await failure(calls, handler)

    assert failed.error.startswith("ResultError: Task 'executor-test' returned")
    assert failed.retry_delay is None
