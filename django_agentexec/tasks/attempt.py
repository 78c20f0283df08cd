"""What a handler may know of its attempt, and do by it: the optional third parameter of a task's function."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Unpack
from uuid import UUID

from asgiref.sync import sync_to_async
from pydantic import BaseModel

from ..activity.current import write_and_wait
from ..activity.streams import retract_text, stream_text
from ..activity.suspension import Suspended
from ..activity.transitions import Operation, Progress
from ..models import Activity
from ..validation import checked_message, validate_percentage
from .gathering import gather, load
from .options import BulkOptions
from .passes import Pass
from .run import Run
from .spawn import Key, map_name, map_places, place, recorded_map, spawn_all

if TYPE_CHECKING:
    from .definition import AnyTask

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
    is_parent: bool = True
    """False if it is known that the activity had no children when this attempt began."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The activity's metadata, such as the tenant that it was stamped with; to be read only."""
    enqueued_by: str | None = None
    """The primary key, as text, of the user who enqueued it over REST, or under `activity.acting_as`; None for code.
    Children take their parent's."""
    _canceled: threading.Event = field(default_factory=threading.Event, repr=False)
    _lost: Future[None] = field(default_factory=_uncancelable, repr=False)
    _spawned: Counter[str] = field(default_factory=Counter, repr=False)
    _awaited: dict[UUID, None] = field(default_factory=dict, repr=False)
    _fan_out: dict[str, Any] = field(default_factory=dict, repr=False)
    _completion_checks: list[Callable[[], None]] = field(default_factory=list, repr=False)
    _pass: Pass = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pass", Pass(self.scope))  # the dataclass is frozen

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

    @property
    def root(self) -> Attempt:
        """The attempt of the activity: itself, or the one that this is a part of."""
        return self if self.outer is None else self.outer.root

    @property
    def suspension(self) -> Suspended | None:
        """The wait for children that a `gather` has begun, of all that it has begun; None without one.

        From then on the handler's outcome does not count, even if it has caught the exception that ends it.
        """
        root = self.root
        return Suspended(list(root._awaited), root._fan_out) if root._awaited else None

    def suspend(self, awaited_ids: Sequence[UUID]) -> Suspended:
        """Record that the handler waits for these children, and return the exception that ends it."""
        self.root._awaited.update(dict.fromkeys(awaited_ids))
        self.root._fan_out[self.scope] = self._pass.entry()
        return Suspended(awaited_ids)

    def enter(self) -> None:
        """Note that the handler, or step, begins in the calling task or thread; called by what runs it."""
        self._pass.enter()

    def finish(self) -> None:
        """Raise `SpawnMismatch` if the handler, or step, has returned without spawning children that it has."""
        if self.suspension is None and (self.is_parent or self._pass.is_loaded):
            load(self)
            self._pass.finish(self.agent_id)

    async def afinish(self) -> None:
        """Async version of `finish`."""
        if self.suspension is None and (self.is_parent or self._pass.is_loaded):
            await sync_to_async(self.finish)()

    def cancel(self) -> None:
        """Set `canceled`; called by the worker."""
        self._canceled.set()

    def lose(self) -> None:
        """End `lost`; called by the worker, once."""
        self._lost.set_result(None)

    def add_completion_check(self, check: Callable[[], None]) -> None:
        """Call `check` when the handler (in a pipeline: the step) has returned.

        What it raises is the outcome instead of the result. For runners, whose runs may leave something undecided.
        """
        self._completion_checks.append(check)

    def check_completion(self) -> None:
        """Call the completion checks; called by the worker when the handler has returned."""
        for check in self._completion_checks:
            check()

    def progress(self, message: str, percentage: float | None = None) -> None:
        """Log `message`, with a percentage of 0 to 100; returns when it is committed.

        The percentage may be lower than before: what an agent estimates may turn out to be more work.

        Raises `InvalidOption` for another percentage, or a message that is empty, no text, or longer than
        `MAX_MESSAGE_LENGTH`, and `StaleAttempt` if this attempt has lost its activity.
        """
        write_and_wait(self, self._progress(message, percentage))

    async def aprogress(self, message: str, percentage: float | None = None) -> None:
        """Do what `progress` does, in an async handler."""
        await asyncio.wrap_future(self.write(self._progress(message, percentage)))

    def stream(self, text: str, *, label: str = "") -> None:
        """Show `text` to those who follow the activity live, after what was shown before. Never waits.

        For a model's answer as it comes, in pieces of any size. Kept for `STREAM_TTL` seconds, not in the row.
        `label` names the writer where several write at once.
        """
        if not self.canceled:
            stream_text(self.agent_id, text, self.number, self.fence, label)

    def retract_stream(self) -> None:
        """Take back all text that this attempt has shown: followers remove it, later ones do not get it."""
        if not self.canceled:
            retract_text(self.agent_id, self.number, self.fence)

    def _progress(self, message: str, percentage: float | None) -> Progress:
        return Progress(
            agent_id=self.agent_id,
            fence=self.fence,
            message=checked_message(message),
            percentage=validate_percentage(percentage),
        )

    # Children

    def spawn(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> Run[Any]:
        """Have a worker run `task` as a child of this activity; return the child it has, if it was spawned before.

        A child is known by its `key`, unique among its parent's children, or by the task's name and the number of
        the call. So a handler that runs again, after a crash, a retry or a wait, finds its children. One whose retries
        were used up in an earlier try is queued again; one that was given up on or canceled is only queued again when
        a person retries the parent. Takes the options of `enqueue_many`; by default its `metadata` is the parent's.

        Raises what `enqueue` raises, `SpawnMismatch` if the child of this place has another task or (without a
        `key`) another context, or if this run of the handler spawns other children than earlier ones did before the
        same `gather`, and `StaleAttempt` if this attempt has lost its activity.
        """
        return self.spawn_many(task, [context], keys=None if key is None else [key], **options)[0]

    async def aspawn(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> Run[Any]:
        """Do what `spawn` does, in an async handler."""
        return (await self.aspawn_many(task, [context], keys=None if key is None else [key], **options))[0]

    def spawn_many(
        self,
        task: str | AnyTask,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]:
        """Do what `spawn` does, once per context and in one transaction."""
        places = [place(self, task, c, k) for c, k in _pairs(contexts, keys)]
        return spawn_all(self, places, in_order=self._pass.is_in_order(), **options)

    async def aspawn_many(
        self,
        task: str | AnyTask,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]:
        """Do what `spawn_many` does, in an async handler."""
        # Numbered here, in the order of the calls, before anything is awaited.
        places = [place(self, task, c, k) for c, k in _pairs(contexts, keys)]
        return await sync_to_async(spawn_all)(self, places, in_order=self._pass.is_in_order(), **options)

    def map(
        self,
        task: str | AnyTask,
        contexts: Iterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]:
        """Have workers run `task` once per context, and return the results in order, as `gather` does.

        The first run of the handler records the list: later ones spawn nothing, do not look at `contexts`, and gather
        what was recorded. So the contexts may come from a query that the children change. A map is known by the
        task and the number of the call.

        `key` makes the keys of the children, for people who look at them: a function of the context, or the name of
        one of its fields; by default they are numbers. Takes the options of `spawn_many`. Raises what `spawn` and
        `gather` raise.
        """
        name, in_order = map_name(self, task), self._pass.is_in_order()
        children = recorded_map(self, name, in_order=in_order)
        if children is None:
            places = map_places(self, task, contexts, key, name)
            children = spawn_all(self, places, in_order=in_order, map_name=name, **options)
        return gather(self, children, return_exceptions, in_order=in_order)

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
        name, in_order = map_name(self, task), self._pass.is_in_order()
        children = await sync_to_async(recorded_map)(self, name, in_order=in_order)
        if children is None:
            listed = [one async for one in contexts] if isinstance(contexts, AsyncIterable) else contexts
            places = await sync_to_async(map_places)(self, task, listed, key, name)
            children = await sync_to_async(spawn_all)(self, places, in_order=in_order, map_name=name, **options)
        return await sync_to_async(gather)(self, children, return_exceptions, in_order=in_order)

    def gather(self, *children: Run[Any] | UUID, return_exceptions: bool = False) -> tuple[Any, ...]:
        """Return the results of spawned children, in order; without arguments, of all children that exist.

        While one of them has not ended, this does not return: the activity gives up its slot and its lock, and is
        woken when the last of them has ended. Then its handler (in a pipeline: the step) runs again from its
        beginning, where `spawn` finds the same children, and `gather` returns. All children are those of the handler
        (or step) that were spawned before this call, in this run or an earlier one.

        Raises `TaskFailed` or `TaskCanceled` for the first child, in order, that has no result; with
        `return_exceptions`, these errors stand among the results. Raises `SpawnMismatch` if this run of the handler
        has not spawned the children that earlier ones had spawned before. Inside a transaction of the handler's,
        Django's `TransactionManagementError`.
        """
        return gather(self, children or None, return_exceptions, in_order=self._pass.is_in_order())

    async def agather(
        self, *children: Run[Any] | UUID | Awaitable[Run[Any]], return_exceptions: bool = False
    ) -> tuple[Any, ...]:
        """Async version of `gather`. Takes calls of `aspawn` that are not awaited yet, too."""
        # One after the other, so that they are numbered in this order each time.
        handles = [await child if isinstance(child, Awaitable) else child for child in children]
        in_order = self._pass.is_in_order()
        return await sync_to_async(gather)(self, handles or None, return_exceptions, in_order=in_order)


def _pairs(contexts: Sequence[BaseModel], keys: Sequence[str] | None) -> list[tuple[BaseModel, str | None]]:
    return list(zip(contexts, [None] * len(contexts) if keys is None else keys, strict=True))
