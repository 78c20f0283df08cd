"""Long-polling: wait for an activity to change, without a database connection.

However many clients wait in a process, one thread reads for all of them, in one query per interval.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from uuid import UUID

from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from ..conf import conf
from ..live.connections import UserLimit, holder_of, live_connections
from ..models import FINISHED, Activity, ActivityLog
from ..results import watching
from ..throttled_logging import ThrottledLogger

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

LOOK = 0.5  # seconds between two reads for all that is waited for; an end is noticed at once
MAX_IDS = 500  # of one query
RETRY_AFTER = 5  # seconds, for a user who has too many requests that wait
TURNS = 8  # waiting requests of one process that use the database at once, before and after their wait
TURN_TIMEOUT = 30.0  # seconds after which a request goes on without a turn
State = tuple[Any, ...]

_turns = threading.BoundedSemaphore(TURNS)
_waits = UserLimit()


@contextmanager
def one_of_few_waits(request: Request) -> Iterator[None]:
    """Let a request wait while the block lasts; raise 429 if its user has too many that do.

    Under WSGI each of them occupies a thread that serves other users otherwise, so there are fewer than under ASGI.
    """
    holder = holder_of(request.user, BaseThrottle().get_ident(request))
    is_asgi = isinstance(request._request, ASGIRequest)
    limit, most = (live_connections, conf.LIVE_MAX_CONNECTIONS) if is_asgi else (_waits, conf.API_MAX_WAITS)
    if not limit.acquire(holder, most):
        raise Throttled(RETRY_AFTER, f"{most} requests of yours wait already.")
    try:
        yield
    finally:
        limit.release(holder)


class Turn:
    """The turn of a request that waits to use the database: many of them begin, or end their wait, in one moment."""

    def __init__(self) -> None:
        self._is_held = False

    def __enter__(self) -> Turn:
        self._is_held = _turns.acquire(timeout=TURN_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        _close_connections()
        if self._is_held:
            self._is_held = False
            _turns.release()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Let others have the turn while the block lasts."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


def wait_for_change(agent_id: UUID, seconds: float, after: int | None, turn: Turn) -> None:
    """Return when the activity's status has changed, or after `seconds`; at once if it is over.

    With `after`, also as soon as there is a log line with a larger id, and at once if there is one already.
    """
    before = Activity.objects.filter(agent_id=agent_id).values_list("status", "latest_log_timestamp").first()
    if before is None or before[0] in FINISHED or (after is not None and _has_newer_log(agent_id, after)):
        return
    # Each log line sets the timestamp, so one row tells of them all.
    waiter = _Waiter(agent_id, before[:1] if after is None else before)
    with turn.left(), watching(agent_id, lambda: _watcher.look_now(agent_id)), _watcher.serving(waiter):
        waiter.changed.wait(seconds)


class _Waiter:
    def __init__(self, agent_id: UUID, before: State) -> None:
        self.agent_id = agent_id
        self.before = before
        self.changed = threading.Event()

    def compare(self, state: State | None) -> None:
        """Wake the request if the row is another one than before, or gone."""
        if state is None or state[: len(self.before)] != self.before:
            self.changed.set()


class _Watcher:
    """Reads what is waited for, from one thread that lives while anybody waits."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._waiters: dict[UUID, set[_Waiter]] = {}
        self._urgent: set[UUID] = set()
        self._is_running = False

    @contextmanager
    def serving(self, waiter: _Waiter) -> Iterator[None]:
        """Wake `waiter` at a change while the block lasts."""
        with self._lock:
            self._waiters.setdefault(waiter.agent_id, set()).add(waiter)
            if not self._is_running:
                threading.Thread(target=self._run, name="agentexec-waiting", daemon=True).start()
                self._is_running = True
        try:
            yield
        finally:
            with self._lock:
                self._waiters[waiter.agent_id].discard(waiter)
                if not self._waiters[waiter.agent_id]:
                    del self._waiters[waiter.agent_id]
                self._lock.notify()

    def look_now(self, agent_id: UUID) -> None:
        """Read this activity at once: it may have ended."""
        with self._lock:
            self._urgent.add(agent_id)
            self._lock.notify()

    def _run(self) -> None:
        due = time.monotonic() + LOOK
        try:
            while True:
                with self._lock:
                    while self._waiters and not self._urgent and (left := due - time.monotonic()) > 0:
                        self._lock.wait(left)
                    if not self._waiters:
                        self._is_running = False
                        self._urgent.clear()
                        return
                    wanted = list(self._urgent & self._waiters.keys())
                    self._urgent.clear()
                    if time.monotonic() >= due:
                        wanted, due = list(self._waiters), time.monotonic() + LOOK
                self._look(wanted)
        finally:
            connections.close_all()

    def _look(self, wanted: list[UUID]) -> None:
        """Read these activities and wake who waits for a change of them. A failed read counts as no change."""
        remaining = iter(wanted)
        while some := list(islice(remaining, MAX_IDS)):
            try:
                rows = Activity.objects.filter(agent_id__in=some)
                states = {row[0]: row[1:] for row in rows.values_list("agent_id", "status", "latest_log_timestamp")}
            except Exception as error:  # noqa: BLE001  # whatever a database raises; the clients' time goes on
                throttled.warn("What REST clients wait for cannot be read at present.", error)
                _close_connections()
                continue
            with self._lock:
                waiters = [waiter for agent_id in some for waiter in self._waiters.get(agent_id, ())]
            for waiter in waiters:
                waiter.compare(states.get(waiter.agent_id))


_watcher = _Watcher()
# A forked process has not the parent's thread, and must leave its locks alone.
os.register_at_fork(after_in_child=_watcher.__init__)  # type: ignore[misc]


def _has_newer_log(agent_id: UUID, after: int) -> bool:
    return ActivityLog.objects.filter(activity_id=agent_id, id__gt=after).exists()


def _close_connections() -> None:
    """Give this thread's connections back; where a transaction is open around the caller, it stays."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
