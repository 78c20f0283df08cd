"""Group commit: writes that arrive while one transaction is under way share the next one.

Starts go before all else, since a free slot waits for each of them; every other write belongs to an activity that
has started, so nothing overtakes what it depends on.

One thread per worker process, with its own database connection. Handing in a write costs nothing;
what became of it is told when it is committed or refused.

Rows that another transaction has locked are set aside and tried again, while all others are committed. During an
outage, such as a restart, a failover or a migration, all writes wait: finished work is kept until it can be written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import NamedTuple
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from ..activity.store import CommitOutcomeUnknown, commit_callbacks, database
from ..activity.store import apply as apply_operations
from ..activity.transitions import Operation
from ..bulk_sql import can_skip_locked
from ..exceptions import ActivityLocked, StaleAttempt
from ..models import Activity
from ..outages import Outage, classify_outage
from .after_commit import Announcer, FollowUps
from .critical_threads import start_critical_thread
from .locked_writes import LockedWrites

logger = logging.getLogger(__name__)

apply = partial(apply_operations, skip_locked=True)

Report = Callable[[Activity | Exception], None]
"""Is called with the row as it was committed, or with the reason of a refusal."""


class Write(NamedTuple):
    """An operation on its way into the database, and who wants to hear of it."""

    operation: Operation
    report: Report
    future: Future[Activity] | None = None
    goes_first: bool = False

    @property
    def agent_id(self) -> UUID:
        """The activity that it changes."""
        return self.operation.agent_id


MAX_BATCH = 500  # rows of one transaction: it should hold its locks for milliseconds only
FIRST_PAUSE = 0.05  # seconds between two tries while the database is away, doubled up to the longest
MAX_PAUSE = 2.0
MAX_REFUSALS = 5  # tries of a write that fails although the database answers
AFTERMATH = 1.5  # seconds at the end for signals and follow-ups of the last commits, together


class Committer:
    """Writes operations in the order in which they are handed in, many per transaction.

    Order is kept per activity: those whose rows are locked let others pass.
    """

    def __init__(self) -> None:
        self._writes: SimpleQueue[Write | None] = SimpleQueue()
        self._first: deque[Write] = deque()
        self._others: deque[Write] = deque()
        self._locked = LockedWrites[Write]()
        self._announcer, self._follow_ups = Announcer(), FollowUps()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._giving_up = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread, and those that deal with what follows its commits."""
        self._announcer.start()
        self._follow_ups.start()
        self._thread = start_critical_thread("agentexec-recorder", self._run)

    def submit(self, operation: Operation) -> Future[Activity]:
        """Hand in a write; its future ends when it is committed, or carries why it was refused.

        A future that is canceled before its write has begun is not written.
        """
        future: Future[Activity] = Future()
        self._put(Write(operation, partial(_end, future), future))
        return future

    def tell(self, operation: Operation, report: Report, *, goes_first: bool = False) -> None:
        """Hand in a write that `report` is told of, in the recorder's thread: keep it short.

        For the worker's own writes, two per activity: a future costs more than all else here.
        """
        self._put(Write(operation, report, None, goes_first))

    def stop(self, timeout: float) -> bool:
        """Write what was handed in, then end; False if that took longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout + AFTERMATH
        self._writes.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout)
        self._giving_up.set()
        for thread in (self._follow_ups, self._announcer):
            if not thread.stop(max(0.0, deadline - time.monotonic())):
                logger.warning("The worker ends without waiting for its thread %s any longer.", thread.name)
        return not self._thread.is_alive()

    def _put(self, write: Write) -> None:
        self._writes.put(write)
        if self._ended.is_set():
            self._refuse_the_rest()

    def _run(self) -> None:
        commit_callbacks.send_signals = self._announcer.announce
        commit_callbacks.run_hooks = self._follow_ups.add
        try:
            while batch := self._next_batch():
                self._write(batch)
        finally:
            self._ended.set()
            self._refuse_the_rest()
            connections.close_all()

    def _refuse_the_rest(self) -> None:
        """Refuse writes that came after the end, so that no thread waits for them for ever."""
        self._sort_arrivals()
        for write in self._locked.take_all():
            _report(write, ActivityLocked([write.agent_id]))
        for waiting in (self._first, self._others):
            for write in _taken(waiting, len(waiting)):
                _report(write, StaleAttempt("The worker has ended; this write came too late."))

    def _next_batch(self) -> list[Write]:
        """Return what has arrived or is to be tried again, at least one write; nothing after the end was handed in."""
        while True:
            self._sort_arrivals()
            if batch := self._locked.take_due(MAX_BATCH):
                return batch
            if batch := self._without_locked(_taken(self._first or self._others, MAX_BATCH)):
                return batch
            if self._first or self._others:
                continue
            if self._is_closed and (not self._locked or self._giving_up.is_set()):
                return []
            with suppress(Empty):
                self._sort(self._writes.get(timeout=self._locked.seconds_until_due()))

    def _without_locked(self, writes: list[Write]) -> list[Write]:
        """Return the writes without those that must wait behind others of their activity."""
        if not self._locked:
            return writes
        free = []
        for write in writes:
            if write.agent_id in self._locked:
                self._locked.append(write.agent_id, write)
            else:
                free.append(write)
        return free

    def _sort_arrivals(self) -> None:
        with suppress(Empty):
            while True:
                self._sort(self._writes.get_nowait())

    def _sort(self, write: Write | None) -> None:
        if write is None:
            self._is_closed = True
        else:
            (self._first if write.goes_first else self._others).append(write)

    def _write(self, batch: list[Write]) -> None:
        try:
            applied = self._apply_until_database_answers([write.operation for write in batch])
        except CommitOutcomeUnknown as error:
            # Nobody knows whether it has happened; one by one it might happen twice.
            for write in batch:
                _report(write, error)
            return
        except Exception as error:  # noqa: BLE001  # handed on to whoever waits for the write
            if len(batch) > 1:
                # One write that the database does not take must not take the others down.
                for write in batch:
                    if self._without_locked([write]):
                        self._write([write])
            elif classify_outage(error) is Outage.LOCKED and not self._giving_up.is_set():
                self._set_aside(batch[0], error)
            else:
                _report(batch[0], error)
            return
        for write, outcome in zip(batch, applied, strict=True):
            if isinstance(outcome, ActivityLocked):
                self._set_aside(write, outcome)
            else:
                _report(write, outcome)

    def _set_aside(self, write: Write, error: Exception) -> None:
        agent_type = error.agent_type if isinstance(error, ActivityLocked) else ""
        label = f"{write.agent_id} ({agent_type})" if agent_type else str(write.agent_id)
        self._locked.set_aside(write.agent_id, write, label)

    def _apply_until_database_answers(self, operations: list[Operation]) -> list[Activity | Exception]:
        pause, refusals = FIRST_PAUSE, 0
        unknown_outcome: CommitOutcomeUnknown | None = None
        while True:
            try:
                return list(apply(operations, unknown_outcome))
            except (DatabaseError, InterfaceError, ActivityLocked) as error:
                outage = classify_outage(error)
                if isinstance(error, CommitOutcomeUnknown):
                    unknown_outcome = error
                elif outage is None:
                    raise  # the statement's own fault
                connections[database()].close()
                if self._giving_up.is_set():
                    raise unknown_outcome or error from error
                if unknown_outcome is None and outage is Outage.LOCKED and not _is_lock_of_all(error):
                    raise
                # A value too large for PostgreSQL is an OperationalError, too, and stays one. What was committed,
                # or nearly so, is not.
                refusals += unknown_outcome is None and outage is Outage.UNCERTAIN and _is_answering()
                if refusals >= MAX_REFUSALS:
                    raise
                logger.warning(f"{_CAUSES[outage or Outage.UNCERTAIN]} (%s); trying again in %.2f s.", error, pause)
                self._giving_up.wait(pause)
                pause = min(2 * pause, MAX_PAUSE)


_CAUSES = {
    Outage.LOCKED: "The database does not answer, since another transaction holds a lock",
    Outage.UNAVAILABLE: "The database does not accept writes at present",
    Outage.UNCERTAIN: "The database does not answer",
}


def _taken(waiting: deque[Write], most: int) -> list[Write]:
    """Take writes out of a line. From here on nobody can cancel them.

    Until then a handler that is canceled while it awaits a write cancels the write, too.
    """
    taken: list[Write] = []
    with suppress(IndexError):
        while len(taken) < most:
            write = waiting.popleft()
            if write.future is None or write.future.set_running_or_notify_cancel():
                taken.append(write)
    return taken


def _report(write: Write, outcome: Activity | Exception) -> None:
    try:
        write.report(outcome)
    except Exception:  # a defect of ours: it must not keep the others from hearing
        logger.exception("What became of %s could not be passed on.", write.operation)


def _end(future: Future[Activity], outcome: Activity | Exception) -> None:
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _is_answering() -> bool:
    """Whether the database is there, and yet does not take a write."""
    try:
        with connections[database()].cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        return False
    return True


def _is_lock_of_all(error: Exception) -> bool:
    """Whether the lock is not that of a row, so that no other write would succeed: SQLite's file, or a table."""
    if connections[database()].vendor == "sqlite" or "database is locked" in str(error):
        return True
    return isinstance(error, ActivityLocked) and can_skip_locked(database())
