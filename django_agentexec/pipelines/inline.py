"""Execution of a pipeline in this process, without queue and database: used by `Pipeline.run` and `make_attempt`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync, sync_to_async
from django.utils.asyncio import async_unsafe
from pydantic import BaseModel

from ..activity.transitions import Operation
from ..current import running
from ..exceptions import ActivityNotFound, InvalidContext, TaskFailed
from ..ids import uuid7
from ..models import Activity
from ..registry import get_task
from ..tasks.attempt import Attempt
from ..tasks.children import Key, Keys
from ..tasks.definition import AnyTask
from ..tasks.options import BulkOptions
from ..tasks.run import Run
from ..threads import call
from ..validation import one_line
from .execution import PipelineClass, call_step


class InlineChildren:
    """Implements `tasks.children.Children` by running each child where it is spawned."""

    def __init__(self) -> None:
        self._results: dict[UUID, Any] = {}
        self._first = 0

    def begin_step(self) -> None:
        """Exclude the children spawned so far from a `gather()` of all children."""
        self._first = len(self._results)

    def enter(self) -> None:
        """Do nothing: a handler runs once, so the order of its calls does not matter."""

    def entry(self) -> dict[str, Any]:
        return {}

    def has_to_check(self, attempt: Attempt) -> bool:
        return False

    def check_complete(self, attempt: Attempt) -> None:
        """Do nothing: no earlier run of the handler has spawned children."""

    def spawn_many(
        self, attempt: Attempt, task: str | AnyTask, contexts: Sequence[BaseModel], keys: Keys, options: BulkOptions
    ) -> list[Run[Any]]:
        return async_to_sync(self.aspawn_many)(attempt, task, contexts, keys, options)

    async def aspawn_many(
        self, attempt: Attempt, task: str | AnyTask, contexts: Sequence[BaseModel], keys: Keys, options: BulkOptions
    ) -> list[Run[Any]]:
        definition = get_task(task)
        return [await self._run(attempt, definition, context) for context in contexts]

    def map(
        self, attempt: Attempt, task: str | AnyTask, contexts: Iterable[BaseModel], key: Key, options: BulkOptions
    ) -> list[Run[Any]]:
        return self.spawn_many(attempt, task, list(contexts), None, options)

    async def amap(
        self,
        attempt: Attempt,
        task: str | AnyTask,
        contexts: Iterable[BaseModel] | AsyncIterable[BaseModel],
        key: Key,
        options: BulkOptions,
    ) -> list[Run[Any]]:
        if isinstance(contexts, AsyncIterable):
            listed = [context async for context in contexts]
        else:
            listed = await sync_to_async(lambda: list(contexts))()
        return await self.aspawn_many(attempt, task, listed, None, options)

    def gather(
        self, attempt: Attempt, children: Sequence[Run[Any] | UUID] | None, return_exceptions: bool
    ) -> tuple[Any, ...]:
        wanted = list(self._results)[self._first :] if children is None else children
        return tuple(self._result(child, return_exceptions) for child in wanted)

    async def agather(
        self, attempt: Attempt, children: Sequence[Run[Any] | UUID] | None, return_exceptions: bool
    ) -> tuple[Any, ...]:
        return self.gather(attempt, children, return_exceptions)

    async def _run(self, parent: Attempt, definition: AnyTask, context: BaseModel) -> Run[Any]:
        if not isinstance(context, definition.context_type):
            raise InvalidContext(
                f"Task {definition.name!r} takes a {definition.context_type.__name__}, not a {type(context).__name__}."
            )
        attempt = InlineAttempt(metadata=parent.metadata, enqueued_by=parent.enqueued_by)
        arguments = (attempt.agent_id, context, *([attempt] if definition.signature.wants_attempt else []))
        try:
            with running(attempt):
                value = await call_handler(definition, arguments)
            attempt.check_completion()
            self._results[attempt.agent_id] = value
        except Exception as error:  # noqa: BLE001  # raised by `gather`
            failed = TaskFailed(attempt.agent_id, one_line(error), 1)
            failed.__cause__ = error
            self._results[attempt.agent_id] = failed
        return Run(attempt.agent_id, definition.name)

    def _result(self, child: Run[Any] | UUID, return_exceptions: bool) -> Any:
        agent_id = child.agent_id if isinstance(child, Run) else child
        if agent_id not in self._results:
            raise ActivityNotFound(agent_id)
        result = self._results[agent_id]
        if isinstance(result, TaskFailed) and not return_exceptions:
            raise result
        return result


class InlineAttempt(Attempt):
    """An attempt that validates and discards progress, and runs children where they are spawned."""

    children: InlineChildren

    def __init__(
        self,
        agent_id: UUID | None = None,
        number: int = 1,
        fence: int = 1,
        metadata: Mapping[str, Any] | None = None,
        enqueued_by: str | None = None,
    ) -> None:
        super().__init__(
            agent_id or uuid7(),
            number,
            fence,
            _discard,
            metadata=dict(metadata or {}),
            enqueued_by=enqueued_by,
            records_calls=False,
            children=InlineChildren(),
        )

    @async_unsafe("In a worker this call would block the event loop; await `aprogress` instead.")
    def progress(self, message: str, percentage: float | None = None) -> None:
        # Not through `write`, which is bypassed inside a transaction on SQLite.
        self._progress(message, percentage)

    def stream(self, text: str, *, label: str = "") -> None:
        """Ignore the text."""

    def retract_stream(self) -> None:
        """Do nothing: no text was published."""


async def run_steps_inline(pipeline: PipelineClass, context: BaseModel, attempt: InlineAttempt) -> Any:
    """Run each step once and return the result of the last step.

    Results are converted to JSON and back as in a worker, so that a value that does not survive there fails here too.
    """
    arguments: tuple[Any, ...] = (context,)
    value = None
    for step in pipeline.steps:
        method = getattr(pipeline.for_step(context, attempt), step.name)
        attempt.children.begin_step()
        with running(attempt):
            value = await call_step(step, method, arguments, attempt)
        attempt.check_completion()
        value = step.loaded(step.stored(value), step.result_type)
        arguments = step.as_arguments(value)
    return value


async def call_handler(definition: AnyTask, arguments: tuple[Any, ...]) -> Any:
    """Call a handler, async or sync, and return its result."""
    if definition.signature.is_async:
        return await definition.handler(*arguments)
    value = await sync_to_async(call)(definition.handler, *arguments)
    return await value if inspect.isawaitable(value) else value


def _discard(operation: Operation) -> Future[Activity]:
    future: Future[Activity] = Future()
    future.set_result(Activity(agent_id=operation.agent_id))
    return future
