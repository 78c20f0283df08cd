"""`ActiveRuns`: the runs of a handler that are in progress, so that a suspension interrupts none of them."""

from __future__ import annotations

import asyncio
from collections import Counter

from .paths import is_inside


class ActiveRuns:
    """The paths of the runs in progress. Runs may end in other threads than that of a waiting run."""

    def __init__(self) -> None:
        self._paths: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def add(self, path: str) -> None:
        """Note that a run has started."""
        self._paths[path] += 1

    def remove(self, path: str) -> None:
        """Note that a run has ended, or waits for a decision."""
        self._paths[path] -= 1
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            if self._are_others_active(entry[0]):
                self._waiting.append(entry)
            else:
                entry[1].call_soon_threadsafe(_wake, entry[2])

    async def pause(self, path: str) -> None:
        """Wait until the other runs have ended or wait as well, since a suspension would interrupt their calls."""
        self.remove(path)
        try:
            await self.others_ended(path)
        finally:
            self.add(path)

    async def others_ended(self, path: str) -> None:
        """Wait until only the runs are in progress that wait for the run at `path`: those around it."""
        if self._are_others_active(path):
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            self._waiting.append((path, loop, future))
            await future

    def _are_others_active(self, path: str) -> bool:
        return any(count > 0 and not is_inside(other, path) for other, count in list(self._paths.items()))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
