"""Long polling: requests that wait for a change of an activity, without a database connection.

One thread per process reads for all waiting clients, with one query per interval.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from uuid import UUID

from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.utils.translation import ngettext
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from ..background import start_daemon_thread
from ..conf import conf
from ..forks import reset_after_fork
from ..live.connections import UserLimit, holder_of, live_connections
from ..logs import ThrottledLogger
from ..models import FINISHED, Activity, ActivityLog
from ..results import watching

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

POLL_INTERVAL = 0.5  # seconds between two reads for all clients; an end is noticed immediately
MAX_IDS = 500  # of one query
RETRY_AFTER = 5  # seconds, for a user with too many waiting requests
MAX_READERS = 8  # waiting requests of one process that use the database at the same time, before or after their wait
TURN_TIMEOUT = 30.0  # seconds after which a request continues without a turn
RowVersion = tuple[Any, ...]

_turns = threading.BoundedSemaphore(MAX_READERS)
_waits = UserLimit()


@contextmanager
def one_of_few_waits(request: Request) -> Iterator[None]:
    """Count a waiting request within the block; raise 429 if its user has too many of them.

    Under WSGI each waiting request occupies a thread, so that the limit is lower than under ASGI.
    """
    holder = holder_of(request.user, BaseThrottle().get_ident(request))
    is_asgi = isinstance(request._request, ASGIRequest)
    limit, most = (live_connections, conf.LIVE_MAX_CONNECTIONS) if is_asgi else (_waits, conf.API_MAX_WAITS)
    if not limit.acquire(holder, most):
        text = ngettext(
            "%(number)d of your requests is waiting already.", "%(number)d of your requests are waiting already.", most
        )
        raise Throttled(RETRY_AFTER, text % {"number": most})
    try:
        yield
    finally:
        limit.release(holder)


class Turn:
    """A turn to use the database for a waiting request, since many of them may start or end at the same time."""

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
    def released(self) -> Iterator[None]:
        """Release the turn within the block."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


def wait_for_change(agent_id: UUID, seconds: float, after: int | None, turn: Turn) -> None:
    """Wait until the activity's status has changed, for at most `seconds`; not at all if the activity has ended.

    With `after`, also return as soon as there is a log line with a larger id.
    """
    before = Activity.objects.filter(agent_id=agent_id).values_list("status", "latest_log_timestamp").first()
    if before is None or before[0] in FINISHED or (after is not None and _has_newer_log(agent_id, after)):
        return
    # Each log line sets the timestamp, so that the row shows new lines, too.
    waiter = _Waiter(agent_id, before[:1] if after is None else before)
    with turn.released(), watching(agent_id, lambda: _watcher.read_now(agent_id)), _watcher.serving(waiter):
        waiter.changed.wait(seconds)


class _Waiter:
    def __init__(self, agent_id: UUID, before: RowVersion) -> None:
        self.agent_id = agent_id
        self.before = before
        self.changed = threading.Event()

    def compare(self, version: RowVersion | None) -> None:
        """Wake the request if the row has changed or was deleted."""
        if version is None or version[: len(self.before)] != self.before:
            self.changed.set()


class _Watcher:
    """A reader for all waiting requests. Its thread runs while there are any."""

    def __init__(self) -> None:
        self._reset()
        # A forked process lacks the parent's thread, and must not use its locks.
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Condition()
        self._waiters: dict[UUID, set[_Waiter]] = {}
        self._urgent: set[UUID] = set()
        self._is_running = False

    @contextmanager
    def serving(self, waiter: _Waiter) -> Iterator[None]:
        """Wake `waiter` at a change within the block."""
        with self._lock:
            self._waiters.setdefault(waiter.agent_id, set()).add(waiter)
            if not self._is_running:
                start_daemon_thread("agentexec-waiting", self._run)
                self._is_running = True
        try:
            yield
        finally:
            with self._lock:
                self._waiters[waiter.agent_id].discard(waiter)
                if not self._waiters[waiter.agent_id]:
                    del self._waiters[waiter.agent_id]
                self._lock.notify()

    def read_now(self, agent_id: UUID) -> None:
        """Read this activity immediately, since it may have ended."""
        with self._lock:
            self._urgent.add(agent_id)
            self._lock.notify()

    def _run(self) -> None:
        due = time.monotonic() + POLL_INTERVAL
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
                        wanted, due = list(self._waiters), time.monotonic() + POLL_INTERVAL
                self._read(wanted)
        finally:
            connections.close_all()

    def _read(self, wanted: list[UUID]) -> None:
        """Read these activities and wake the requests of changed activities. A failed read counts as no change."""
        remaining = iter(wanted)
        while some := list(islice(remaining, MAX_IDS)):
            try:
                rows = Activity.objects.filter(agent_id__in=some)
                states = {row[0]: row[1:] for row in rows.values_list("agent_id", "status", "latest_log_timestamp")}
            except Exception as error:  # noqa: BLE001  # any error of a database; the clients keep waiting
                throttled.warn("Could not read the activities that REST clients wait for.", error)
                _close_connections()
                continue
            with self._lock:
                waiters = [waiter for agent_id in some for waiter in self._waiters.get(agent_id, ())]
            for waiter in waiters:
                waiter.compare(states.get(waiter.agent_id))


_watcher = _Watcher()


def _has_newer_log(agent_id: UUID, after: int) -> bool:
    return ActivityLog.objects.filter(activity_id=agent_id, id__gt=after).exists()


def _close_connections() -> None:
    """Close this thread's connections, except those with an open transaction around the caller."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
