"""What one user may occupy of a web process: connections, and reads at once.

Without such limits, a thousand sockets of one user keep everybody else's waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from ..policy import User

READS_AT_ONCE = 2  # of one user; fewer than there are threads that read


class UserLimit:
    """Counts what each user holds in this process; callable in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[Hashable] = Counter()

    def acquire(self, holder: Hashable, most: int) -> bool:
        """Hold one more, which must be released; False if `holder` has `most` already."""
        with self._lock:
            if self._held[holder] >= most:
                return False
            self._held[holder] += 1
            return True

    def release(self, holder: Hashable) -> None:
        """Hold one less."""
        with self._lock:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]

    def is_reached(self, holder: Hashable, most: int) -> bool:
        """Whether `acquire` would fail now."""
        with self._lock:
            return self._held[holder] >= most


class Place:
    """One place of a holder within a limit, given back once by whichever end of its use is noticed first."""

    def __init__(self, limit: UserLimit, holder: Hashable) -> None:
        self._limit = limit
        self._holder = holder
        self._lock = threading.Lock()
        self._is_held = self._is_over = False

    def take(self, most: int) -> bool:
        """Take the place, unless `most` are taken or it was given back before."""
        with self._lock:
            self._is_held = not self._is_over and self._limit.acquire(self._holder, most)
            return self._is_held

    def give_back(self) -> None:
        """Give the place back, if it is taken."""
        with self._lock:
            self._is_over = True
            if self._is_held:
                self._is_held = False
                self._limit.release(self._holder)


live_connections = UserLimit()
"""Websockets, event streams, and (under ASGI) waiting requests."""
_reads: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
_lock = threading.Lock()


def holder_of(user: User | None, address: str) -> Hashable:
    """Return whom a connection counts for: a user, or the address of somebody who is not signed in."""
    if user is not None and user.is_authenticated:
        return "user", str(user.pk)
    return "address", address


@asynccontextmanager
async def read_turn(holder: Hashable) -> AsyncIterator[None]:
    """Wait until few enough reads run for this holder: those for others run in between."""
    key = id(asyncio.get_running_loop()), holder
    with _lock:
        semaphore = _reads.setdefault(key, asyncio.Semaphore(READS_AT_ONCE))
    async with semaphore:
        yield
