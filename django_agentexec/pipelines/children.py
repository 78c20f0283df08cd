"""The methods of a pipeline by which its steps run children in workers."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterable, Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload
from uuid import UUID

from pydantic import BaseModel

from ..tasks.attempt import Attempt
from ..tasks.definition import AnyTask, Task
from ..tasks.options import BulkOptions
from ..tasks.run import Child, Run

if TYPE_CHECKING:
    from ..tasks.children import Key

C = TypeVar("C", bound=BaseModel)
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


class StepChildren:
    """The children of a step: `spawn`, `gather` and `map` of the current attempt."""

    @property
    def attempt(self) -> Attempt:
        """The current attempt."""
        raise NotImplementedError

    @overload
    def spawn(
        self, task: Task[C, ..., Any, T], context: C, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[T]: ...
    @overload
    def spawn(
        self, task: str, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]: ...
    def spawn(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> Run:
        """Enqueue `task` once as a child of this step. For sync steps; see `Attempt.spawn`."""
        if _is_awaited("spawn"):
            return cast(Run, self.aspawn(task, context, key=key, **options))
        return self.attempt.spawn(task, context, key=key, **options)

    @overload
    async def aspawn(
        self, task: Task[C, ..., Any, T], context: C, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[T]: ...
    @overload
    async def aspawn(
        self, task: str, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]: ...
    async def aspawn(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> Run:
        """Async version of `spawn`."""
        return await self.attempt.aspawn(task, context, key=key, **options)

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
    def spawn_many(
        self,
        task: str | AnyTask,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run]:
        """Enqueue `task` once per context, in one transaction, as children of this step."""
        if _is_awaited("spawn_many"):
            return cast(list[Run], self.aspawn_many(task, contexts, keys=keys, **options))
        return self.attempt.spawn_many(task, contexts, keys=keys, **options)

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
    ) -> list[Run]:
        """Async version of `spawn_many`."""
        return await self.attempt.aspawn_many(task, contexts, keys=keys, **options)

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
    def gather(self, *children: Run | UUID, return_exceptions: bool = False) -> tuple[Any, ...]:
        """Return the results of children; without arguments, of all children of this step. See `Attempt.gather`.

        The pipeline occupies no slot while children are active.
        """
        if _is_awaited("gather"):
            return cast(tuple[Any, ...], self.agather(*children, return_exceptions=return_exceptions))
        return self.attempt.gather(*children, return_exceptions=return_exceptions)

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
    async def agather(self, *children: Run | UUID | Awaitable[Run], return_exceptions: bool = False) -> tuple[Any, ...]:
        """Async version of `gather`. Accepts calls of `aspawn` that are not awaited yet.

        Example: `await self.agather(self.aspawn(a, x), self.aspawn(b, y))`.
        """
        return await self.attempt.agather(*children, return_exceptions=return_exceptions)

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
    def map(
        self,
        task: str | AnyTask,
        contexts: Iterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]:
        """Run `task` once per context in workers and return the results in order. See `Attempt.map`.

        In a pipeline with a step of this name, use `self.attempt.map`.
        """
        if _is_awaited("map"):
            call = self.amap(task, contexts, key=key, return_exceptions=return_exceptions, **options)
            return cast(tuple[Any, ...], call)
        return self.attempt.map(task, contexts, key=key, return_exceptions=return_exceptions, **options)

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
        """Async version of `map`. `contexts` may be an asynchronous iterable."""
        return await self.attempt.amap(task, contexts, key=key, return_exceptions=return_exceptions, **options)


def _is_awaited(name: str) -> bool:
    """Return whether a sync method is called in an event loop, as async steps did before the `a...` methods existed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    warnings.warn(
        f"In an async step, `await self.{name}(...)` is deprecated; use `await self.a{name}(...)`.",
        DeprecationWarning,
        stacklevel=3,
    )
    return True
