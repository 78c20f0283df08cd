"""`Attempt`: the optional third parameter of a task's function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload
from uuid import UUID

from asgiref.sync import async_to_sync, sync_to_async
from pydantic import BaseModel

from ..activity.store import write_and_wait
from ..activity.streams import retract_text, stream_text
from ..activity.transitions import Progress
from ..blocking import blocking
from ..calls.once import UNSET, Once
from ..conversations.session import DjangoSession
from ..validation import checked_message, validate_percentage
from .children import Key
from .options import BulkOptions
from .run import Child, Run
from .state import AttemptState

if TYPE_CHECKING:
    from .definition import AnyTask, Task

C = TypeVar("C", bound=BaseModel)
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


@dataclass(frozen=True, eq=False)
class Attempt(AttemptState):
    """One execution of an activity.

    A handler receives it as its third parameter: `def handler(agent_id, context, attempt)`. In a unit test,
    `django_agentexec.testing.make_attempt()` creates one.
    """

    @property
    def conversation(self) -> DjangoSession | None:
        """The conversation that `enqueue(..., conversation=...)` has named, as a session for runs; None without one."""
        return None if self.session_id is None else DjangoSession(self.session_id)

    def finish(self) -> None:
        """Raise `SpawnMismatch` if the handler, or step, has returned without spawning its existing children."""
        if self.suspension is None and self.children.has_to_check(self):
            self.children.check_complete(self)

    async def afinish(self) -> None:
        """Async version of `finish`."""
        if self.suspension is None and self.children.has_to_check(self):
            await sync_to_async(self.finish)()

    @blocking
    def progress(self, message: str, percentage: float | None = None) -> None:
        """Log `message`, with a percentage of 0 to 100; return when it is committed.

        The percentage may be lower than before, since an estimate may change.

        Raises `InvalidOption` for another percentage, or a message that is empty, not text, or longer than
        `MAX_MESSAGE_LENGTH`, and `StaleAttempt` if this attempt has lost its activity.
        """
        write_and_wait(self, self._progress(message, percentage))

    async def aprogress(self, message: str, percentage: float | None = None) -> None:
        """Async version of `progress`."""
        await asyncio.wrap_future(self.write(self._progress(message, percentage)))

    def stream(self, text: str, *, label: str = "") -> None:
        """Append `text` to the live stream of the activity. Never waits.

        Used for the answer of a model, in chunks of any size. The stream is kept for `STREAM_TTL` seconds, not in the
        row. `label` names the writer if several write at the same time.
        """
        if not self.canceled:
            stream_text(self.agent_id, text, self.number, self.fence, label)

    def retract_stream(self) -> None:
        """Remove all text of this attempt from the live stream, also for clients that already show it."""
        if not self.canceled:
            retract_text(self.agent_id, self.number, self.fence)

    @blocking
    def once(self, key: str, function: Callable[[], T], *, result_type: Any = UNSET) -> T:
        """Call `function` once in the life of the activity, and return its result; later attempts read the result.

        For side effects of the handler, such as a payment. The start is recorded before the call and the result after
        it, so a call whose process dies in between happens again: pass `tool_key()` to services that deduplicate.
        `key` is unique within the handler (in a pipeline: the step). The type of the result is that of the function's
        annotation or `result_type`; the result is stored and loaded like that of a pipeline's step. A call that raises
        is repeated in the next attempt. Concurrent calls of a key wait for the first.

        Raises `InvalidOption` before the call for an unsuitable key, an unknown type, or a key that was used for
        another function or other values; `ResultError` after it, without a retry, for a result that cannot be stored.
        """
        result: T = async_to_sync(Once(self, key, function, result_type).run)()
        return result

    async def aonce(
        self, key: str, function: Callable[[], Awaitable[T]] | Callable[[], T], *, result_type: Any = UNSET
    ) -> T:
        """Async version of `once`. A plain function runs in a thread."""
        result: T = await Once(self, key, function, result_type).run()
        return result

    def _progress(self, message: str, percentage: float | None) -> Progress:
        return Progress(
            agent_id=self.agent_id,
            fence=self.fence,
            message=checked_message(message),
            percentage=validate_percentage(percentage),
        )

    # Children

    @overload
    def spawn(
        self, task: Task[C, ..., Any, T], context: C, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[T]: ...
    @overload
    def spawn(
        self, task: str, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]: ...
    @blocking
    def spawn(
        self, task: str | AnyTask, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]:
        """Enqueue `task` as a child of this activity; return the existing child if it was spawned before.

        A child is identified by its `key`, unique among its parent's children, or by the task's name and the number of
        the call, so a handler that runs again, after a crash, a retry or a wait, finds its children. A child that used
        up its retries in an earlier try is queued again; a child with a final error, or a canceled one, is queued again
        only when a person retries the parent. Takes the options of `enqueue_many`; by default a child has the
        `metadata` of its parent.

        Raises what `enqueue` raises, `SpawnMismatch` if the child of this place has another task or (without a
        `key`) another context, or if this run of the handler spawns other children than earlier ones did before the
        same `gather`, and `StaleAttempt` if this attempt has lost its activity.
        """
        return self.spawn_many(task, [context], keys=None if key is None else [key], **options)[0]

    @overload
    async def aspawn(
        self, task: Task[C, ..., Any, T], context: C, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[T]: ...
    @overload
    async def aspawn(
        self, task: str, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]: ...
    async def aspawn(
        self, task: str | AnyTask, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]:
        """Async version of `spawn`."""
        return (await self.aspawn_many(task, [context], keys=None if key is None else [key], **options))[0]

    @overload
    def spawn_many(
        self,
        task: Task[C, ..., Any, T],
        contexts: Sequence[C],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[T]]: ...
    @overload
    def spawn_many(
        self,
        task: str,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]: ...
    @blocking
    def spawn_many(
        self,
        task: str | AnyTask,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]:
        """Spawn one child per context, in one transaction. See `spawn`."""
        return self.children.spawn_many(self, task, contexts, keys, options)

    @overload
    async def aspawn_many(
        self,
        task: Task[C, ..., Any, T],
        contexts: Sequence[C],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[T]]: ...
    @overload
    async def aspawn_many(
        self,
        task: str,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]: ...
    async def aspawn_many(
        self,
        task: str | AnyTask,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]:
        """Async version of `spawn_many`."""
        return await self.children.aspawn_many(self, task, contexts, keys, options)

    @overload
    def map(
        self,
        task: Task[C, ..., Any, T],
        contexts: Iterable[C],
        *,
        key: Key = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[T, ...]: ...
    @overload
    def map(
        self,
        task: Task[C, ..., Any, Any],
        contexts: Iterable[C],
        *,
        key: Key = None,
        return_exceptions: bool,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]: ...
    @overload
    def map(
        self,
        task: str,
        contexts: Iterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]: ...
    @blocking
    def map(
        self,
        task: str | AnyTask,
        contexts: Iterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]:
        """Spawn `task` once per context, and return the results in order, as `gather` does.

        The first run of the handler records the list; later runs spawn nothing, ignore `contexts`, and gather the
        recorded children. The contexts may therefore come from a query whose result the children change. A map is
        identified by the task and the number of the call.

        `key` creates readable keys of the children: a function of the context, or the name of one of its fields; by
        default keys are numbers. Takes the options of `spawn_many`. Raises what `spawn` and
        `gather` raise.
        """
        children = self.children.map(self, task, contexts, key, options)
        return self.children.gather(self, children, return_exceptions)

    @overload
    async def amap(
        self,
        task: Task[C, ..., Any, T],
        contexts: Iterable[C] | AsyncIterable[C],
        *,
        key: Key = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[T, ...]: ...
    @overload
    async def amap(
        self,
        task: Task[C, ..., Any, Any],
        contexts: Iterable[C] | AsyncIterable[C],
        *,
        key: Key = None,
        return_exceptions: bool,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]: ...
    @overload
    async def amap(
        self,
        task: str,
        contexts: Iterable[BaseModel] | AsyncIterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]: ...
    async def amap(
        self,
        task: str | AnyTask,
        contexts: Iterable[BaseModel] | AsyncIterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]:
        """Async version of `map`. `contexts` may be an asynchronous iterable; others are read in a thread."""
        children = await self.children.amap(self, task, contexts, key, options)
        return await self.children.agather(self, children, return_exceptions)

    @overload
    def gather(self, child1: Run[T1], /) -> tuple[T1]: ...
    @overload
    def gather(self, child1: Run[T1], child2: Run[T2], /) -> tuple[T1, T2]: ...
    @overload
    def gather(self, child1: Run[T1], child2: Run[T2], child3: Run[T3], /) -> tuple[T1, T2, T3]: ...
    @overload
    def gather(
        self, child1: Run[T1], child2: Run[T2], child3: Run[T3], child4: Run[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    def gather(
        self, child1: Run[T1], child2: Run[T2], child3: Run[T3], child4: Run[T4], child5: Run[T5], /
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    def gather(self, *children: Run[T]) -> tuple[T, ...]: ...
    @overload
    def gather(self, *children: Run[Any] | UUID, return_exceptions: bool = False) -> tuple[Any, ...]: ...
    @blocking
    def gather(self, *children: Run[Any] | UUID, return_exceptions: bool = False) -> tuple[Any, ...]:
        """Return the results of spawned children, in order; without arguments, of all children that exist.

        While one of them has not ended, this does not return: the activity gives up its slot and its lock, and is
        resumed when the last of them has ended. Then its handler (in a pipeline: the step) runs again from its
        beginning, where `spawn` finds the same children, and `gather` returns. All children are those of the handler
        (or step) that were spawned before this call, in this run or an earlier one.

        Raises `TaskFailed` or `TaskCanceled` for the first child, in order, that has no result; with
        `return_exceptions`, these errors stand among the results. Raises `SpawnMismatch` if this run of the handler
        has not spawned the children that earlier ones had spawned before. Inside a transaction of the handler's,
        Django's `TransactionManagementError`.
        """
        return self.children.gather(self, children or None, return_exceptions)

    @overload
    async def agather(self, child1: Child[T1], /) -> tuple[T1]: ...
    @overload
    async def agather(self, child1: Child[T1], child2: Child[T2], /) -> tuple[T1, T2]: ...
    @overload
    async def agather(self, child1: Child[T1], child2: Child[T2], child3: Child[T3], /) -> tuple[T1, T2, T3]: ...
    @overload
    async def agather(
        self, child1: Child[T1], child2: Child[T2], child3: Child[T3], child4: Child[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def agather(
        self, child1: Child[T1], child2: Child[T2], child3: Child[T3], child4: Child[T4], child5: Child[T5], /
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    async def agather(self, *children: Child[T]) -> tuple[T, ...]: ...
    @overload
    async def agather(self, *children: Child[Any] | UUID, return_exceptions: bool = False) -> tuple[Any, ...]: ...
    async def agather(self, *children: Child[Any] | UUID, return_exceptions: bool = False) -> tuple[Any, ...]:
        """Async version of `gather`. Also takes calls of `aspawn` that are not awaited yet."""
        # Sequentially, so that they get the same numbers each time.
        handles = [await child if isinstance(child, Awaitable) else child for child in children]
        return await self.children.agather(self, handles or None, return_exceptions)
