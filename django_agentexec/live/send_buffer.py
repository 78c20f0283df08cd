"""What waits to be sent to one client. Filled by its subscriptions, emptied by whoever writes to the client.

A subscription keeps only the latest state of what it tells, so a slow client costs no memory: it gets
fewer messages, not later ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from .messages import Json, split


class Source(Protocol):
    """Who has something to tell."""

    def take(self) -> list[Json]:
        """Return what there is to tell now, as messages."""


class SendBuffer:
    """Used in one event loop, by one reader."""

    def __init__(self) -> None:
        self._messages: deque[Json] = deque()
        self._sources: dict[Source, None] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Json) -> None:
        """Add a message; a long one in parts."""
        self._messages.extend(split(message))
        self._filled.set()

    def announce(self, source: Source) -> None:
        """Note that `source` has something to tell; it is asked when its turn comes."""
        self._sources[source] = None
        self._filled.set()

    def forget(self, source: Source) -> None:
        """Ask `source` no more."""
        self._sources.pop(source, None)

    async def get(self, seconds: float) -> Json | None:
        """Return the next message, or None after so many `seconds` without one."""
        try:
            async with asyncio.timeout(seconds):
                while (message := self._next()) is None:
                    self._filled.clear()
                    await self._filled.wait()
                return message
        except TimeoutError:
            return None

    def _next(self) -> Json | None:
        while not self._messages and self._sources:
            source = next(iter(self._sources))
            del self._sources[source]
            for message in source.take():
                self._messages.extend(split(message))
        return self._messages.popleft() if self._messages else None
