"""`SpawnedChildren`: the children of an attempt in a worker, which are activities of their own."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgiref.sync import sync_to_async
from pydantic import BaseModel

from ..tasks.children import Key, Keys
from ..tasks.options import BulkOptions
from ..tasks.run import Run
from .gather import gather, load
from .passes import Pass
from .spawn import map_name, map_places, places_of, recorded_map, spawn_all

if TYPE_CHECKING:
    from ..tasks.attempt import Attempt
    from ..tasks.definition import AnyTask


class SpawnedChildren:
    """Implements `tasks.children.Children` with rows. One object per attempt, or per step of a pipeline."""

    def __init__(self) -> None:
        self._pass = Pass()

    def enter(self) -> None:
        self._pass.enter()

    def entry(self) -> dict[str, Any]:
        return self._pass.entry()

    def has_to_check(self, attempt: Attempt) -> bool:
        return attempt.is_parent or self._pass.is_loaded

    def check_complete(self, attempt: Attempt) -> None:
        load(attempt, self._pass)
        self._pass.finish(attempt.agent_id)

    def spawn_many(
        self, attempt: Attempt, task: str | AnyTask, contexts: Sequence[BaseModel], keys: Keys, options: BulkOptions
    ) -> list[Run[Any]]:
        places = places_of(attempt, self._pass, task, contexts, keys)
        return spawn_all(attempt, self._pass, places, in_order=self._pass.is_in_order(), **options)

    async def aspawn_many(
        self, attempt: Attempt, task: str | AnyTask, contexts: Sequence[BaseModel], keys: Keys, options: BulkOptions
    ) -> list[Run[Any]]:
        # Numbered here, in the order of the calls, before anything is awaited.
        places = places_of(attempt, self._pass, task, contexts, keys)
        in_order = self._pass.is_in_order()
        return await sync_to_async(spawn_all)(attempt, self._pass, places, in_order=in_order, **options)

    def map(
        self, attempt: Attempt, task: str | AnyTask, contexts: Iterable[BaseModel], key: Key, options: BulkOptions
    ) -> list[Run[Any]]:
        name, in_order = map_name(self._pass, task), self._pass.is_in_order()
        children = recorded_map(attempt, self._pass, name, in_order=in_order)
        if children is not None:
            return children
        places = map_places(attempt, task, contexts, key, name)
        return spawn_all(attempt, self._pass, places, in_order=in_order, map_name=name, **options)

    async def amap(
        self,
        attempt: Attempt,
        task: str | AnyTask,
        contexts: Iterable[BaseModel] | AsyncIterable[BaseModel],
        key: Key,
        options: BulkOptions,
    ) -> list[Run[Any]]:
        name, in_order = map_name(self._pass, task), self._pass.is_in_order()
        children = await sync_to_async(recorded_map)(attempt, self._pass, name, in_order=in_order)
        if children is not None:
            return children
        listed = [context async for context in contexts] if isinstance(contexts, AsyncIterable) else contexts
        places = await sync_to_async(map_places)(attempt, task, listed, key, name)
        spawn = sync_to_async(spawn_all)
        return await spawn(attempt, self._pass, places, in_order=in_order, map_name=name, **options)

    def gather(
        self, attempt: Attempt, children: Sequence[Run[Any] | UUID] | None, return_exceptions: bool
    ) -> tuple[Any, ...]:
        return gather(attempt, self._pass, children, return_exceptions, in_order=self._pass.is_in_order())

    async def agather(
        self, attempt: Attempt, children: Sequence[Run[Any] | UUID] | None, return_exceptions: bool
    ) -> tuple[Any, ...]:
        in_order = self._pass.is_in_order()
        return await sync_to_async(gather)(attempt, self._pass, children, return_exceptions, in_order=in_order)
