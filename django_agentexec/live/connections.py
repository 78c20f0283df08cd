"""Users of live connections: how many connections and reads each may have, and whether they are still signed in.

Without limits, a thousand sockets of one user would delay those of all others. A connection lives long: meanwhile the
session may end, and the user may be deactivated.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.utils.translation import ngettext

if TYPE_CHECKING:
    from ..policy import User

MAX_READS_PER_USER = 2  # at the same time; fewer than the threads, so that other users are not delayed

_reads: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
_reads_lock = threading.Lock()


class UserLimit:
    """A counter of the connections of each user in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[Hashable] = Counter()

    def acquire(self, holder: Hashable, maximum: int) -> bool:
        """Count one more connection, which must be released; False if `holder` has the maximum already."""
        with self._lock:
            if self._held[holder] >= maximum:
                return False
            self._held[holder] += 1
            return True

    def release(self, holder: Hashable) -> None:
        """Count one connection less."""
        with self._lock:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]

    def is_reached(self, holder: Hashable, maximum: int) -> bool:
        """Return whether `acquire` would fail now."""
        with self._lock:
            return self._held[holder] >= maximum


class ConnectionSlot:
    """A holder's slot within a limit. Several cleanup paths may release it; only the first call has an effect."""

    def __init__(self, limit: UserLimit, holder: Hashable) -> None:
        self._limit = limit
        self._holder = holder
        self._lock = threading.Lock()
        self._is_held = self._is_over = False

    def acquire(self, maximum: int) -> bool:
        """Take the slot, unless the maximum is taken or the slot was released before."""
        with self._lock:
            self._is_held = not self._is_over and self._limit.acquire(self._holder, maximum)
            return self._is_held

    def release(self) -> None:
        """Release the slot, if it is held."""
        with self._lock:
            self._is_over = True
            if self._is_held:
                self._is_held = False
                self._limit.release(self._holder)


live_connections = UserLimit()
"""Websockets, event streams, and (under ASGI) waiting requests."""


def holder_of(user: User | None, address: str) -> Hashable:
    """Return the holder that a connection counts for: the user, or the address of an anonymous client."""
    if user is not None and user.is_authenticated:
        return "user", str(user.pk)
    return "address", address


@asynccontextmanager
async def read_turn(holder: Hashable) -> AsyncIterator[None]:
    """Wait until fewer than `MAX_READS_PER_USER` reads of this holder run; reads of other holders run in between."""
    key = id(asyncio.get_running_loop()), holder
    with _reads_lock:
        semaphore = _reads.setdefault(key, asyncio.Semaphore(MAX_READS_PER_USER))
    async with semaphore:
        yield


def reload_session(session: Any) -> Any:
    """Return the session as it is stored now; an empty one if it has ended or expired."""
    return import_module(settings.SESSION_ENGINE).SessionStore(session.session_key)


def reload_user(known: User | None, session: Any) -> User:
    """Return `known` with their current data from the database, or an `AnonymousUser` if they are signed out.

    If the session names the user, it is read again (its end and a new password end the sign-in); otherwise only the
    user is read, as the project's middleware has chosen them.
    """
    if known is None or not known.is_authenticated:
        return AnonymousUser()
    if session is not None and SESSION_KEY in session:
        request = HttpRequest()
        request.session = reload_session(session)
        user: User = get_user(request)
        return user if user.pk == known.pk else AnonymousUser()
    model: Any = getattr(getattr(known, "_meta", None), "model", None)
    fresh: Any = model._default_manager.filter(pk=known.pk).first() if model is not None else None
    return fresh if fresh is not None and fresh.is_active else AnonymousUser()


def too_many_connections(limit: int) -> str:
    """Return why a further connection of a user is refused."""
    text = ngettext(
        "You have %(number)d live connection; close it first.",
        "You have %(number)d live connections; close others first.",
        limit,
    )
    return text % {"number": limit}
