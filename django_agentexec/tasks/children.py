"""`Children`: how an attempt spawns and gathers its children.

The package `children` implements it for workers, `pipelines.inline` for runs without a queue. Who makes an attempt
passes the implementation in, since tasks do not import the packages that are built on them.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from pydantic import BaseModel

from .options import BulkOptions
from .run import Run

if TYPE_CHECKING:
    from .attempt import Attempt
    from .definition import AnyTask

Key = Callable[[Any], str] | str | None
"""How a map creates the keys of its children from their contexts: a function, or the name of a field."""

Keys = Sequence[str] | None


class Children(Protocol):
    """The children of one attempt, behind `Attempt.spawn_many`, `map` and `gather`."""

    def enter(self) -> None:
        """Record that the handler, or step, begins in the calling task or thread."""

    def entry(self) -> dict[str, Any]:
        """Return what the next run of the handler has to know."""

    def has_to_check(self, attempt: Attempt) -> bool:
        """Return whether `check_complete` may find something."""

    def check_complete(self, attempt: Attempt) -> None:
        """Raise `SpawnMismatch` if the handler, or step, has returned without spawning its existing children."""

    def spawn_many(
        self, attempt: Attempt, task: str | AnyTask, contexts: Sequence[BaseModel], keys: Keys, options: BulkOptions
    ) -> list[Run[Any]]:
        """Return the children with these contexts, new or found."""

    async def aspawn_many(
        self, attempt: Attempt, task: str | AnyTask, contexts: Sequence[BaseModel], keys: Keys, options: BulkOptions
    ) -> list[Run[Any]]:
        """Async version of `spawn_many`."""

    def map(
        self, attempt: Attempt, task: str | AnyTask, contexts: Iterable[BaseModel], key: Key, options: BulkOptions
    ) -> list[Run[Any]]:
        """Return the children with these contexts, or those that an earlier run of the handler has spawned."""

    async def amap(
        self,
        attempt: Attempt,
        task: str | AnyTask,
        contexts: Iterable[BaseModel] | AsyncIterable[BaseModel],
        key: Key,
        options: BulkOptions,
    ) -> list[Run[Any]]:
        """Async version of `map`."""

    def gather(
        self, attempt: Attempt, children: Sequence[Run[Any] | UUID] | None, return_exceptions: bool
    ) -> tuple[Any, ...]:
        """Return the results of these children, in order; None: of all children."""

    async def agather(
        self, attempt: Attempt, children: Sequence[Run[Any] | UUID] | None, return_exceptions: bool
    ) -> tuple[Any, ...]:
        """Async version of `gather`."""
