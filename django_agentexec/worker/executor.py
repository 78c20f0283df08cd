"""One attempt: context in, handler, outcome out.

The outcome is a value, the operation to write: `Complete`, `Fail`, `Park` or `Release`, or None where this attempt
has nothing to say any more, because the activity was canceled or belongs to somebody else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from ..activity.current import running
from ..activity.operations import Complete, Fail, OwnedOperation, Release
from ..activity.parking import Park, Parked
from ..conf import conf
from ..exceptions import ResultError, StaleAttempt
from ..models import Activity
from ..public_errors import text_for_everybody
from ..queues import Claim
from ..tasks.attempt import Attempt, Write
from ..tasks.definition import TaskDefinition
from ..tasks.registry import registry
from ..values import one_line, storable_json
from .calls import Calls

logger = logging.getLogger(__name__)

LONGEST_TRACEBACK = 50_000  # characters; the end of a longer one is what tells
UNKNOWN_TASK_DELAY = 10.0  # seconds until a worker of the next release may know the task


class Stop(Enum):
    """Why an attempt is stopped before its handler ends."""

    CANCELED = "the activity was canceled"
    LOST = "the lease was lost"
    TIMEOUT = "the attempt took too long"
    SHUTDOWN = "the worker is shutting down"


class Execution:
    """An attempt while it runs."""

    def __init__(self, claim: Claim, activity: Activity, write: Write, calls: Calls) -> None:
        self.claim = claim
        self.activity = activity
        self.attempt = Attempt(
            activity.agent_id,
            activity.attempt,
            claim.fence,
            write,
            metadata=activity.metadata,
            enqueued_by=activity.enqueued_by,
        )
        self._calls = calls
        self._reason: Stop | None = None  # the first one counts
        self._told: set[Stop] = set()
        self._handler: asyncio.Task[Any] | None = None
        self.task: asyncio.Task[None] | None = None

    def stop(self, reason: Stop) -> None:
        """Stop the handler: an async one gets a `CancelledError`, a sync one sees `attempt.canceled`.

        Once for each reason: another one would end the handler's clean-up in its middle.
        """
        if self.was_told(reason):
            return
        self._told.add(reason)
        self._reason = self._reason or reason
        self.attempt.cancel()
        if reason is Stop.LOST:
            self.attempt.lose()
        if self._handler is not None:
            self._handler.cancel()

    def was_told(self, reason: Stop) -> bool:
        """Whether the handler has been stopped for this reason."""
        return reason in self._told

    @property
    def is_lost(self) -> bool:
        """Whether its lease was, or had to be taken for, lost, whatever else it was told before."""
        return self.was_told(Stop.LOST)

    async def run(self) -> OwnedOperation | None:
        """Run the handler to its end, and return the operation to write. Raises nothing of the handler's."""
        try:
            definition = registry.get(self.activity.agent_type)
        except Exception as error:  # noqa: BLE001  # unknown, or a module of tasks that cannot be imported
            return self._failed(None, error, retry_delay=UNKNOWN_TASK_DELAY)
        try:
            context = definition.load_context(json.dumps(self.activity.context))
        except Exception as error:  # noqa: BLE001  # a model's validators may raise anything
            return self._failed(definition, error, retry_delay=None)
        try:
            with running(self.attempt):
                value = await self._call(definition, context)
            return self._completed(definition, value)
        except asyncio.CancelledError as error:
            return self._stopped(definition, error)
        except StaleAttempt:
            return None
        except Parked as parked:
            return self._parked(parked)
        except BaseException as error:  # noqa: BLE001  # the handler's, for its row
            parked_tasks = _parked_in(error)
            return self._parked(parked_tasks) if parked_tasks else self._raised(definition, error)

    async def _call(self, definition: TaskDefinition[..., Any], context: BaseModel) -> Any:
        arguments = (self.activity.agent_id, context, *([self.attempt] if definition.signature.wants_attempt else []))
        call = self._call_async if definition.signature.is_async else self._call_sync
        return await call(definition, arguments)

    async def _call_async(self, definition: TaskDefinition[..., Any], arguments: tuple[Any, ...]) -> Any:
        async with self._calls.around_async():
            self._handler = asyncio.ensure_future(_acontained(definition.handler, *arguments))
            if self._reason:
                self._handler.cancel()
            return await self._result(self._handler, definition.timeout)

    async def _call_sync(self, definition: TaskDefinition[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._reason:
            raise asyncio.CancelledError
        # A thread cannot be stopped: the slot and the lock stay taken until the handler gives in.
        call = self._calls.call_sync(self._begin, definition.handler, *arguments)
        return await self._result(call, definition.timeout)

    def _begin(self, handler: Callable[..., Any], *arguments: Any) -> Any:
        """Call the handler in its thread, unless it was told to stop while it waited for one."""
        return _Exit(asyncio.CancelledError()) if self._reason else _contained(handler, *arguments)

    async def _result(self, handler: asyncio.Future[Any], limit: float | None) -> Any:
        await asyncio.wait({handler}, timeout=limit)
        if not handler.done():
            self.stop(Stop.TIMEOUT)
            await asyncio.wait({handler})
        value = handler.result()
        if isinstance(value, _Exit):
            raise value.error
        return value

    def _completed(self, definition: TaskDefinition[..., Any], value: Any) -> OwnedOperation | None:
        if self._reason in (Stop.CANCELED, Stop.LOST):
            return None
        if self._reason is not None:
            # Told to stop, it returned: nobody can say whether that is its result or its farewell.
            return self._stopped(definition, asyncio.CancelledError())
        text = definition.store_result(value)
        if len(text) > conf.MAX_RESULT_BYTES:
            raise ResultError(
                f"The result of task {definition.name!r} has {len(text):,} bytes of JSON; the limit "
                f"AGENTEXEC['MAX_RESULT_BYTES'] is {conf.MAX_RESULT_BYTES:,}."
            )
        # A NUL, which PostgreSQL does not take, is no reason to throw the work of an hour away.
        result = json.loads(storable_json(text.decode()))
        return Complete(agent_id=self.activity.agent_id, fence=self.claim.fence, result=result)

    def _stopped(self, definition: TaskDefinition[..., Any], error: BaseException) -> OwnedOperation | None:
        match self._reason:
            case Stop.CANCELED | Stop.LOST:
                return None
            case Stop.SHUTDOWN:
                return self.release()
            case Stop.TIMEOUT:
                late = TimeoutError(f"The attempt took longer than {definition.timeout} s.")
                return self._raised(definition, late.with_traceback(error.__traceback__))
        return self._raised(definition, error)  # the handler canceled itself

    def _parked(self, parked: Parked) -> OwnedOperation | None:
        if self._reason in (Stop.CANCELED, Stop.LOST):
            return None
        return Park(agent_id=self.activity.agent_id, fence=self.claim.fence, awaited=parked.awaited)

    def release(self) -> Release:
        """Return the operation that gives the activity back to the queue, uncharged."""
        return Release(agent_id=self.activity.agent_id, fence=self.claim.fence)

    def _raised(self, definition: TaskDefinition[..., Any], error: BaseException) -> OwnedOperation | None:
        if self._reason in (Stop.CANCELED, Stop.LOST):
            return None
        if self._reason is Stop.SHUTDOWN:
            return self.release()  # whatever its clean-up has raised
        delay = definition.retry_delay(error, self.activity.retries + 1)
        if not isinstance(error, Exception):
            delay = definition.backoff_delay(error, self.activity.retries + 1)
        return self._failed(definition, error, retry_delay=delay)

    def _failed(
        self, definition: TaskDefinition[..., Any] | None, error: BaseException, *, retry_delay: float | None
    ) -> Fail:
        extra = {"agent_id": str(self.activity.agent_id), "task": self.activity.agent_type}
        is_final = retry_delay is None or self.activity.retries >= self.activity.max_retries
        logger.log(
            logging.ERROR if is_final else logging.WARNING,
            "Attempt %d of %s %s failed%s: %s",
            self.activity.attempt,
            self.activity.agent_type,
            self.activity.agent_id,
            ", with no retry left" if is_final else "",
            one_line(error),
            exc_info=error if is_final else None,
            extra=extra,
        )
        return Fail(
            agent_id=self.activity.agent_id,
            fence=self.claim.fence,
            error=one_line(error),
            public_error=text_for_everybody(error, exposes_errors=definition is not None and definition.exposes_errors),
            traceback="".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:],
            retry_delay=retry_delay,
        )


def _parked_in(error: BaseException) -> Parked | None:
    """Return what the tasks of a handler's `TaskGroup` wait for, if waiting is all that ended them."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    waiting, others = error.split(Parked)
    if waiting is None or others is not None:
        return None
    awaited: list[UUID] = []
    groups: list[BaseException] = [waiting]
    while groups:
        one = groups.pop()
        groups.extend(one.exceptions if isinstance(one, BaseExceptionGroup) else [])
        awaited.extend(one.awaited if isinstance(one, Parked) else [])
    return Parked(list(dict.fromkeys(awaited)))


@dataclass(frozen=True)
class _Exit:
    """What must not be raised where the handler is called, such as its `SystemExit`: it would end the whole loop."""

    error: BaseException


def _contained(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (SystemExit, KeyboardInterrupt) as error:
        return _Exit(error)


async def _acontained(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    try:
        return await function(*arguments)
    except (SystemExit, KeyboardInterrupt) as error:
        return _Exit(error)
