"""Token counts of a run, saved after each model call: visible during the run, and kept if it is killed or canceled.

Nested agents (tools, handoffs) add to the counts of the calling run, so one observer sees every call. At most one
write of a run is in progress; the counts of calls that end meanwhile are saved together by the next write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import fields
from decimal import Decimal
from typing import Any

from agents import RunContextWrapper, Usage

from .wire import counts_of

Add = Callable[[dict[str, int], Decimal | None], Awaitable[None]]


class ObservedUsage(Usage):
    """A `Usage` that calls `on_add` after each addition. Copies of it are plain `Usage` objects."""

    def __init__(self, usage: Usage, on_add: Callable[[], None]) -> None:
        super().__init__(**_values(usage))
        self.on_add = on_add

    def add(self, other: Usage) -> None:
        super().add(other)
        self.on_add()

    def __reduce__(self) -> tuple[Callable[..., Usage], tuple[dict[str, Any]]]:
        return _plain, (_values(self),)


class UsageRecorder:
    """Saves additions to the usage of `wrapper` by calling `add` in the event loop in which it was created."""

    def __init__(self, wrapper: RunContextWrapper[Any], add: Add) -> None:
        self._wrapper = wrapper
        # A resumed state or a reused context wrapper contains tokens of earlier runs.
        self._saved = counts_of(wrapper.usage)
        self._usage = wrapper.usage = ObservedUsage(wrapper.usage, self._schedule_save)
        self._add = add
        self._loop = asyncio.get_running_loop()
        self._saving: asyncio.Task[None] | None = None
        self._cost: Decimal | None = None

    def add_cost(self, cost: Decimal) -> None:
        """Add to the cost, which is saved with the next counts."""
        self._cost = (self._cost or Decimal()) + cost
        self._schedule_save()

    async def finish(self) -> None:
        """Save the remaining counts. Raises the exceptions of `add`."""
        if self._wrapper.usage is self._usage:
            self._wrapper.usage = _plain(_values(self._usage))
        if self._saving is not None:
            await asyncio.wait({self._saving})
        await self._save()

    def _schedule_save(self) -> None:
        # Counts from another thread, such as a tool that runs an agent, are saved by the next call or at the end.
        if _running_loop() is self._loop and (self._saving is None or self._saving.done()):
            self._saving = self._loop.create_task(self._save_quietly())

    async def _save_quietly(self) -> None:
        with suppress(Exception):  # retried after the next call; `finish` raises
            await self._save()

    async def _save(self) -> None:
        while any((added := self._unsaved()).values()) or self._cost is not None:
            cost, self._cost = self._cost, None
            try:
                await self._add(added, cost)
            except BaseException:
                self._cost = cost if self._cost is None else self._cost + (cost or 0)
                raise
            for name, count in added.items():
                self._saved[name] += count

    def _unsaved(self) -> dict[str, int]:
        return {name: count - self._saved[name] for name, count in counts_of(self._usage).items()}


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _values(usage: Usage) -> dict[str, Any]:
    return {each.name: getattr(usage, each.name) for each in fields(Usage)}


def _plain(values: dict[str, Any]) -> Usage:
    return Usage(**values)
