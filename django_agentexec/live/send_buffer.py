"""Outgoing messages of one client: filled by its subscriptions, emptied by its connection.

A subscription keeps only the latest state, so that a slow client costs no memory: it receives fewer messages, not later
ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from .messages import Message, split


class MessageSource(Protocol):
    """A subscription with pending messages."""

    def take(self) -> Sequence[Message]:
        """Return the pending messages."""


class SendBuffer:
    """A buffer for one event loop and one reader."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._sources: dict[MessageSource, None] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Add a message; a long message in parts."""
        self._messages.extend(split(message))
        self._filled.set()

    def mark_pending(self, source: MessageSource) -> None:
        """Take the messages of `source` when its turn comes."""
        self._sources[source] = None
        self._filled.set()

    def discard(self, source: MessageSource) -> None:
        """Take no further messages of `source`."""
        self._sources.pop(source, None)

    async def get(self, seconds: float) -> Message | None:
        """Return the next message, or None if there is none within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while (message := self._next()) is None:
                    self._filled.clear()
                    await self._filled.wait()
                return message
        except TimeoutError:
            return None

    def _next(self) -> Message | None:
        while not self._messages and self._sources:
            source = next(iter(self._sources))
            del self._sources[source]
            for message in source.take():
                self._messages.extend(split(message))
        return self._messages.popleft() if self._messages else None
