"""What a handler may know of its attempt, and do by it: the optional third parameter of a task's function."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Unpack
from uuid import UUID

from asgiref.sync import sync_to_async
from pydantic import BaseModel

from ..activity.current import write_and_wait
from ..activity.operations import Operation, Progress
from ..activity.streams import stream_text
from ..models import Activity
from ..values import checked_percentage

if TYPE_CHECKING:
    from .definition import BulkOptions, TaskDefinition
    from .enqueue import ActivityHandle

Write = Callable[[Operation], "Future[Activity]"]


def _as_it_is(operation: Operation) -> Operation:
    return operation


def _uncancelable() -> Future[None]:
    """Return a future that who waits for it cannot cancel."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(frozen=True, eq=False)
class Attempt:
    """One execution of an activity.

    A handler asks for it by a third parameter: `def handler(agent_id, context, attempt)`. In a unit test,
    `django_agentexec.testing.make_attempt()` gives one.
    """

    agent_id: UUID
    number: int
    """1 for the first attempt of the activity. A crash of the process, or a wait for children, does not add one."""
    fence: int
    """Grows with every claim. Give it to a store that can refuse writes with an older one."""
    write: Write = field(repr=False)
    scope: str = ""
    """What the names of its children begin with: the step, in a pipeline."""
    tries: int = 0
    """Counts the tries of a step; 0 where the attempt itself is the try."""
    adapt: Callable[[Operation], Operation] = field(default=_as_it_is, repr=False)
    """What `write` does to an operation before it hands it in: a step's progress is a share of the whole."""
    outer: Attempt | None = field(default=None, repr=False)
    """The attempt that this one is a part of."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The activity's metadata, such as the tenant that it was stamped with; to be read only."""
    enqueued_by: str | None = None
    """The primary key, as text, of the user who enqueued it over REST, or under `activity.acting_as`; None for code.
    Children take their parent's."""
    _canceled: threading.Event = field(default_factory=threading.Event, repr=False)
    _lost: Future[None] = field(default_factory=_uncancelable, repr=False)
    _spawned: Counter[str] = field(default_factory=Counter, repr=False)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this activity: for services that refuse to do a thing twice."""
        return str(self.agent_id)

    @property
    def canceled(self) -> bool:
        """Whether to stop now: canceled, timed out, lease lost or worker shutting down.

        Async handlers get a `CancelledError` as well; sync ones must look here from time to time.
        """
        return self._canceled.is_set() or (self.outer is not None and self.outer.canceled)

    @property
    def lost(self) -> Future[None]:
        """Ends when the activity has to be taken for another worker's; a sync write that waits then ends, too."""
        return self._lost if self.outer is None else self.outer.lost

    def cancel(self) -> None:
        """Set `canceled`; called by the worker."""
        self._canceled.set()

    def lose(self) -> None:
        """End `lost`; called by the worker, once."""
        self._lost.set_result(None)

    def progress(self, message: str, percentage: float | None = None) -> None:
        """Log `message`, with a percentage of 0 to 100; returns when it is committed.

        Raises `InvalidOption` for another percentage, `StaleAttempt` if this attempt has lost its activity.
        """
        write_and_wait(self, self._progress(message, percentage))

    async def aprogress(self, message: str, percentage: float | None = None) -> None:
        """Do what `progress` does, in an async handler."""
        await asyncio.wrap_future(self.write(self._progress(message, percentage)))

    def stream(self, text: str) -> None:
        """Show `text` to whoever follows the activity live, after what was shown before. Never waits.

        For a model's answer as it comes, in pieces of any size. Kept for `STREAM_TTL` seconds, not in the row.
        """
        if not self.canceled:
            stream_text(self.agent_id, text, self.number)

    def _progress(self, message: str, percentage: float | None) -> Progress:
        return Progress(
            agent_id=self.agent_id, fence=self.fence, message=message, percentage=checked_percentage(percentage)
        )

    # Children

    def spawn(
        self,
        task: str | TaskDefinition[..., Any],
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> ActivityHandle:
        """Have a worker run `task` as a child of this activity; return the child it has, if it was spawned before.

        A child is known by its `key`, unique among its parent's children, or by the task's name and the number of
        the call. So a handler that runs again, after a crash, a retry or a wait, finds its children. One that has
        failed or was canceled in an earlier try is queued again. Takes the options of `enqueue_many`; its
        `metadata` is the parent's unless said.

        Raises what `enqueue` raises, `SpawnMismatch` if the child of this place has another task or (without a
        `key`) another context, and `StaleAttempt` if this attempt has lost its activity.
        """
        return self.spawn_many(task, [context], keys=None if key is None else [key], **options)[0]

    async def aspawn(
        self,
        task: str | TaskDefinition[..., Any],
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> ActivityHandle:
        """Do what `spawn` does, in an async handler."""
        return (await self.aspawn_many(task, [context], keys=None if key is None else [key], **options))[0]

    def spawn_many(
        self,
        task: str | TaskDefinition[..., Any],
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[ActivityHandle]:
        """Do what `spawn` does, once per context and in one transaction."""
        from .spawn import place, spawn_all

        return spawn_all(self, [place(self, task, c, k) for c, k in _pairs(contexts, keys)], **options)

    async def aspawn_many(
        self,
        task: str | TaskDefinition[..., Any],
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[ActivityHandle]:
        """Do what `spawn_many` does, in an async handler."""
        from .spawn import place, spawn_all

        # Numbered here, in the order of the calls, before anything is awaited.
        places = [place(self, task, c, k) for c, k in _pairs(contexts, keys)]
        return await sync_to_async(spawn_all)(self, places, **options)

    def gather(self, *children: ActivityHandle | UUID, return_exceptions: bool = False) -> tuple[Any, ...]:
        """Return the results of spawned children, in order.

        While one of them has not ended, this does not return: the activity gives up its slot and its lock, and is
        woken when the last of them has ended. Then its handler (in a pipeline: the step) runs again from its
        beginning, where `spawn` finds the same children, and `gather` returns.

        Raises `TaskFailed` or `TaskCanceled` for the first child, in order, that has no result; with
        `return_exceptions`, these errors stand among the results. Inside a transaction of the handler's, Django's
        `TransactionManagementError`.
        """
        from .gathering import gather

        return gather(self, children, return_exceptions)

    async def agather(
        self, *children: ActivityHandle | UUID | Awaitable[ActivityHandle], return_exceptions: bool = False
    ) -> tuple[Any, ...]:
        """Do what `gather` does, in an async handler. Takes calls of `aspawn` that are not awaited yet, too."""
        from .gathering import gather

        # One after the other, so that they are numbered in this order each time.
        handles = [await child if isinstance(child, Awaitable) else child for child in children]
        return await sync_to_async(gather)(self, handles, return_exceptions)


def _pairs(contexts: Sequence[BaseModel], keys: Sequence[str] | None) -> list[tuple[BaseModel, str | None]]:
    return list(zip(contexts, [None] * len(contexts) if keys is None else keys, strict=True))
