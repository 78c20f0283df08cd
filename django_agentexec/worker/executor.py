"""The execution of one attempt: load the context, call the handler, return the outcome.

The outcome is the operation to write: `Complete`, `Fail`, `Suspend`, `Defer` or `Release`; or None if this attempt must
write nothing more, because the activity was canceled or belongs to another attempt.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from ..activity.streams import aflush_stream, is_streaming
from ..activity.suspension import Condition, Defer, Deferred, Suspend, Suspended, earliest
from ..activity.transitions import Complete, Fail, OwnedOperation, Release
from ..children.spawned import SpawnedChildren
from ..conf import conf
from ..current import running
from ..exceptions import ResultError, SpawnMismatch, StaleAttempt
from ..models import Activity, HookFlag
from ..public_errors import public_text_of
from ..queues import Claim
from ..tasks.attempt import Attempt
from ..tasks.definition import AnyTask
from ..tasks.registry import registry
from ..tasks.state import Write
from ..telemetry.context import continued
from ..threads import call
from ..validation import one_line
from .invoker import HandlerInvoker, isolated_error_tracker

logger = logging.getLogger(__name__)

MAX_TRACEBACK = 50_000  # characters; of a longer traceback the end is kept
UNKNOWN_TASK_DELAY = 10.0  # seconds until the retry of an unknown task, which a worker of the next release may know


class Stop(Enum):
    """The reason for which an attempt is stopped before its handler ends."""

    CANCELED = "the activity was canceled"
    LOST = "the lease was lost"
    TIMEOUT = "the attempt took too long"
    SHUTDOWN = "the worker is shutting down"


class Execution:
    """A running attempt."""

    def __init__(self, claim: Claim, activity: Activity, write: Write, invoker: HandlerInvoker) -> None:
        self.claim = claim
        self.activity = activity
        self.attempt = Attempt(
            activity.agent_id,
            activity.attempt,
            claim.fence,
            write,
            children=SpawnedChildren(),
            is_parent=bool(activity.hook_flags & HookFlag.PARENT),
            metadata=activity.metadata,
            enqueued_by=activity.enqueued_by,
            session_id=activity.session_id,
        )
        self._invoker = invoker
        self._reason: Stop | None = None  # the first reason
        self._stop_reasons: set[Stop] = set()
        self._handler: asyncio.Task[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.began = time.monotonic()

    def stop(self, reason: Stop) -> None:
        """Stop the handler: an async handler gets a `CancelledError`, a sync handler finds `attempt.canceled` set.

        At most once per reason: a repetition would interrupt the clean-up of the handler.
        """
        if self.was_stopped_for(reason):
            return
        self._stop_reasons.add(reason)
        self._reason = self._reason or reason
        self.attempt.cancel()
        if reason is Stop.LOST:
            self.attempt.lose()
        if self._handler is not None:
            self._handler.cancel()

    def was_stopped_for(self, reason: Stop) -> bool:
        """Return whether the handler was stopped for this reason."""
        return reason in self._stop_reasons

    @property
    def is_lost(self) -> bool:
        """Whether its lease was lost or had to be considered lost, also after a stop for another reason."""
        return self.was_stopped_for(Stop.LOST)

    async def run(self) -> OwnedOperation | None:
        """Run the handler to its end and return the operation to write. Exceptions of the handler are not raised."""
        with isolated_error_tracker():
            return await self._run()

    async def _run(self) -> OwnedOperation | None:
        try:
            definition = registry.get(self.activity.agent_type)
        except Exception as error:  # noqa: BLE001  # an unknown task, or a module of tasks that cannot be imported
            return self._failed(None, error, retry_delay=UNKNOWN_TASK_DELAY)
        try:
            context = definition.load_context(json.dumps(self.activity.context))
        except Exception as error:  # noqa: BLE001  # a model's validators may raise anything
            return self._failed(definition, error, retry_delay=None)
        try:
            with running(self.attempt), continued(self.activity.traceparent):
                value = await self._call(definition, context)
            if suspended := self._suspension(None):
                return self._suspended(suspended)
            return self._completed(definition, value)
        except StaleAttempt:
            return None
        except Deferred as deferred:
            return self._deferred(deferred)
        except BaseException as error:  # noqa: BLE001  # an exception of the handler, for its row
            if suspended := self._suspension(error):
                return self._suspended(suspended)
            if isinstance(error, asyncio.CancelledError):
                return self._stopped(definition, error)
            return self._raised(definition, error)

    async def _call(self, definition: AnyTask, context: BaseModel) -> Any:
        arguments = (self.activity.agent_id, context, *([self.attempt] if definition.signature.wants_attempt else []))
        try:
            if definition.signature.is_async:
                return await self._call_async(definition.handler, arguments, definition.timeout)
            value = await self._call_sync(definition, arguments)
            if not inspect.isawaitable(value):
                return value
            # A sync decorator around an `async def` returns an awaitable.
            return await self._call_async(_awaited, (value,), definition.timeout)
        finally:
            if is_streaming(self.activity.agent_id):  # the end must not be visible before the last text
                await aflush_stream()

    async def _call_async(
        self, function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...], limit: float | None
    ) -> Any:
        async with self._invoker.around_async():
            self._handler = asyncio.ensure_future(_acontained(self.attempt, function, *arguments))
            if self._reason:
                self._handler.cancel()
            return await self._result(self._handler, limit)

    async def _call_sync(self, definition: AnyTask, arguments: tuple[Any, ...]) -> Any:
        if self._reason:
            raise asyncio.CancelledError
        # A thread cannot be stopped: slot and lock remain occupied until the handler ends.
        future = self._invoker.call_sync(self._begin, definition.handler, *arguments)
        return await self._result(future, definition.timeout)

    def _begin(self, handler: Callable[..., Any], *arguments: Any) -> Any:
        """Call the handler in its thread unless it was stopped while it waited for the thread."""
        return _Exit(asyncio.CancelledError()) if self._reason else _contained(self.attempt, handler, *arguments)

    async def _result(self, handler: asyncio.Future[Any], limit: float | None) -> Any:
        await asyncio.wait({handler}, timeout=limit)
        if not handler.done():
            self.stop(Stop.TIMEOUT)
            await asyncio.wait({handler})
        value = handler.result()
        if isinstance(value, _Exit):
            raise value.error
        return value

    def _completed(self, definition: AnyTask, value: Any) -> OwnedOperation | None:
        if self._reason in (Stop.CANCELED, Stop.LOST):
            return None
        if self._reason is not None:
            # A handler that returns after a stop may have returned a partial result.
            return self._stopped(definition, asyncio.CancelledError())
        self.attempt.check_completion()
        text = definition.store_result(value)
        if len(text) > conf.MAX_RESULT_BYTES:
            raise ResultError(
                f"The result of task {definition.name!r} has {len(text):,} bytes of JSON; the limit "
                f"AGENTEXEC['MAX_RESULT_BYTES'] is {conf.MAX_RESULT_BYTES:,}."
            )
        return Complete(agent_id=self.activity.agent_id, fence=self.claim.fence, result=json.loads(text))

    def _stopped(self, definition: AnyTask, error: BaseException) -> OwnedOperation | None:
        match self._reason:
            case Stop.CANCELED | Stop.LOST:
                return None
            case Stop.SHUTDOWN:
                return self.release()
            case Stop.TIMEOUT:
                late = TimeoutError(f"The attempt took longer than {definition.timeout} s.")
                return self._raised(definition, late.with_traceback(error.__traceback__))
        return self._raised(definition, error)  # the handler canceled itself

    def _suspension(self, error: BaseException | None) -> Suspended | None:
        """Return the wait that ends this attempt, or None for none.

        The handler raises it; it may also have replaced a wait by `error` or, without an error, by a result.
        """
        if isinstance(error, SpawnMismatch):
            return None  # another run of the handler would spawn the wrong children again
        raised = error if isinstance(error, Suspended) else _suspended_in(error)
        recorded = self.attempt.suspension
        if raised is None:
            if recorded is not None:
                self._warn_of_caught_wait(error)
            return recorded
        if recorded is None:
            return Suspended(list(dict.fromkeys(raised.awaited_ids)), None, raised.requests, raised.condition)
        awaited_ids = dict.fromkeys([*recorded.awaited_ids, *raised.awaited_ids])
        return Suspended(list(awaited_ids), recorded.fan_out, recorded.requests, recorded.condition)

    def _warn_of_caught_wait(self, error: BaseException | None) -> None:
        logger.warning(
            "The handler of %s %s caught a wait and ended with %s, which is discarded: the "
            "activity is suspended and its handler runs again afterwards. Do not catch the exception of `gather` or of "
            "a run.",
            self.activity.agent_type,
            self.activity.agent_id,
            "a result" if error is None else one_line(error),
            extra={"agent_id": str(self.activity.agent_id), "task": self.activity.agent_type},
        )

    def _suspended(self, suspended: Suspended) -> OwnedOperation | None:
        if self._reason in (Stop.CANCELED, Stop.LOST):
            return None
        return Suspend(
            agent_id=self.activity.agent_id,
            fence=self.claim.fence,
            awaited_ids=suspended.awaited_ids,
            fan_out=suspended.fan_out,
            requests=tuple(suspended.requests),
            new_requests=tuple(request for request in suspended.requests if request._state.adding),
            condition=suspended.condition,
        )

    def _deferred(self, deferred: Deferred) -> OwnedOperation | None:
        if self._reason in (Stop.CANCELED, Stop.LOST):
            return None
        return Defer(agent_id=self.activity.agent_id, fence=self.claim.fence, delay=deferred.delay)

    def release(self) -> Release:
        """Return the operation that returns the activity to the queue without counting a retry."""
        return Release(agent_id=self.activity.agent_id, fence=self.claim.fence)

    def _raised(self, definition: AnyTask, error: BaseException) -> OwnedOperation | None:
        if self._reason in (Stop.CANCELED, Stop.LOST):
            return None
        if self._reason is Stop.SHUTDOWN:
            return self.release()  # regardless of exceptions in its clean-up
        return self._failed(definition, error, retry_delay=definition.retry_delay(error, self.activity.retries + 1))

    def _failed(self, definition: AnyTask | None, error: BaseException, *, retry_delay: float | None) -> Fail:
        extra = {"agent_id": str(self.activity.agent_id), "task": self.activity.agent_type}
        is_final = retry_delay is None or self.activity.retries >= self.activity.max_retries
        logger.log(
            logging.ERROR if is_final else logging.WARNING,
            "Attempt %d of %s %s failed, %s: %s",
            self.activity.attempt,
            self.activity.agent_type,
            self.activity.agent_id,
            "with no retry left" if is_final else f"next attempt in {retry_delay:.1f} s",
            one_line(error),
            exc_info=error if is_final else None,
            extra=extra,
        )
        return Fail(
            agent_id=self.activity.agent_id,
            fence=self.claim.fence,
            error=one_line(error),
            public_error=public_text_of(error, exposes_errors=definition is not None and definition.exposes_errors),
            traceback="".join(traceback.format_exception(error))[-MAX_TRACEBACK:],
            retry_delay=retry_delay,
        )


def _suspended_in(error: BaseException | None) -> Suspended | None:
    """Return the children that tasks of a handler's `TaskGroup` await, if the group failed only because of waits."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    waiting, others = error.split(Suspended)
    if waiting is None or others is not None:
        return None
    awaited_ids: list[UUID] = []
    conditions: list[Condition] = []
    groups: list[BaseException] = [waiting]
    while groups:
        current = groups.pop()
        groups.extend(current.exceptions if isinstance(current, BaseExceptionGroup) else [])
        if isinstance(current, Suspended):
            awaited_ids.extend(current.awaited_ids)
            conditions.extend([current.condition] if current.condition else [])
    return Suspended(list(dict.fromkeys(awaited_ids)), condition=earliest(conditions))


@dataclass(frozen=True)
class _Exit:
    """An exception such as `SystemExit` that is returned instead of raised, since it would end the event loop."""

    error: BaseException


def _contained(attempt: Attempt, function: Callable[..., Any], *arguments: Any) -> Any:
    attempt.enter()
    try:
        value = call(function, *arguments)
    except (SystemExit, KeyboardInterrupt) as error:
        return _Exit(error)
    if not inspect.isawaitable(value):  # otherwise the handler has not run yet
        attempt.finish()
    return value


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


async def _acontained(attempt: Attempt, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    attempt.enter()
    try:
        value = await function(*arguments)
    except (SystemExit, KeyboardInterrupt) as error:
        return _Exit(error)
    await attempt.afinish()
    return value
