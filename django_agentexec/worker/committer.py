"""Group commit: writes that arrive during a transaction share the next transaction.

Starts are written first, since a free slot waits for each of them. All other writes belong to started activities, so
no write overtakes a write that it depends on.

Writes that may wait, such as the log line before a call of a model, do so for `LINGER`, or until another write arrives.

Each worker process has one committer thread with its own database connection. Queueing a write is cheap; a callback
or a future reports whether it was committed or rejected.

Writes to rows that another transaction has locked are set aside and retried, while all others are committed. During an
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
from ..background import start_critical_thread
from ..bulk_sql import can_skip_locked
from ..exceptions import ActivityLocked, StaleAttempt
from ..models import Activity
from ..outages import Outage, classify_outage
from .after_commit import HookRunner, SignalSender
from .locked_writes import LockedWrites

logger = logging.getLogger(__name__)

apply = partial(apply_operations, skip_locked=True)

Callback = Callable[[Activity | Exception], None]
"""A function that is called with the committed row, or with the reason of a rejection."""


class Write(NamedTuple):
    """A queued operation, and the receiver of its result."""

    operation: Operation
    callback: Callback
    future: Future[Activity] | None = None
    is_start: bool = False

    @property
    def agent_id(self) -> UUID:
        """The activity that the operation changes."""
        return self.operation.agent_id


LINGER = 0.005  # seconds for which writes that may wait do so
MAX_BATCH = 500  # rows per transaction, which bounds the time for which it holds locks to milliseconds
FIRST_PAUSE = 0.05  # seconds between two attempts while the database is unavailable, doubled up to the maximum
MAX_PAUSE = 2.0
MAX_REJECTIONS = 5  # attempts of a write that fails although the database replies
AFTER_COMMIT_TIMEOUT = 1.5  # seconds at the end for signals and completion hooks of the last commits, together


class Committer:
    """A thread that writes queued operations, many per transaction.

    The order of the writes of an activity is kept; writes to other rows overtake writes to locked rows.
    """

    def __init__(self) -> None:
        self._writes: SimpleQueue[Write | None] = SimpleQueue()
        self._first: deque[Write] = deque()
        self._others: deque[Write] = deque()
        self._locked = LockedWrites[Write]()
        self._linger_until: float | None = None
        self._signals, self._hooks = SignalSender(), HookRunner()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._giving_up = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread, and the threads for signals and completion hooks."""
        self._signals.start()
        self._hooks.start()
        self._thread = start_critical_thread("agentexec-committer", self._run)

    def submit(self, operation: Operation) -> Future[Activity]:
        """Queue a write and return a future of the committed row, or of the reason of a rejection.

        Cancelling the future before the write begins discards the write.
        """
        future: Future[Activity] = Future()
        self._put(Write(operation, partial(_end, future), future))
        return future

    def queue_write(self, operation: Operation, callback: Callback, *, is_start: bool = False) -> None:
        """Queue a write; `callback` runs in the committer thread when it is committed or rejected, so it must be fast.

        Used for the two writes of the worker per activity, since a future would cost more than the rest of this path.
        """
        self._put(Write(operation, callback, None, is_start))

    def stop(self, timeout: float) -> bool:
        """Write all queued operations, then end; return False if that takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout + AFTER_COMMIT_TIMEOUT
        self._writes.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout)
        self._giving_up.set()
        for thread in (self._hooks, self._signals):
            if not thread.stop(max(0.0, deadline - time.monotonic())):
                logger.warning("Thread %s did not end in time; the worker ends without it.", thread.name)
        return not self._thread.is_alive()

    def _put(self, write: Write) -> None:
        self._writes.put(write)
        if self._ended.is_set():
            self._reject_remaining()

    def _run(self) -> None:
        commit_callbacks.send_signals = self._signals.send
        commit_callbacks.run_hooks = self._hooks.add
        try:
            while batch := self._next_batch():
                self._write(batch)
        finally:
            self._ended.set()
            self._reject_remaining()
            connections.close_all()

    def _reject_remaining(self) -> None:
        """Reject writes that arrived after the end, so that no thread waits for them without a limit."""
        self._sort_arrivals()
        for write in self._locked.take_all():
            _notify(write, ActivityLocked([write.agent_id]))
        for waiting in (self._first, self._others):
            for write in _taken(waiting, len(waiting)):
                _notify(write, StaleAttempt("The worker has ended; this write came too late."))

    def _next_batch(self) -> list[Write]:
        """Wait for writes that are new or due for a retry, and return them; an empty list after the end."""
        while True:
            self._sort_arrivals()
            if batch := self._locked.take_due(MAX_BATCH):
                return batch
            if (seconds := self._seconds_to_linger()) > 0:
                with suppress(Empty):
                    self._sort(self._writes.get(timeout=seconds))
                continue
            self._linger_until = None
            if batch := self._without_locked(_taken(self._first or self._others, MAX_BATCH)):
                return batch
            if self._first or self._others:
                continue
            if self._is_closed and (not self._locked or self._giving_up.is_set()):
                return []
            with suppress(Empty):
                self._sort(self._writes.get(timeout=self._locked.seconds_until_due()))

    def _seconds_to_linger(self) -> float:
        """Return for how long to wait for writes that share the transaction of those that are queued."""
        if self._is_closed or self._first or not self._others:
            return 0.0
        if not all(write.operation.may_wait for write in self._others):
            return 0.0
        now = time.monotonic()
        if self._linger_until is None:
            self._linger_until = now + LINGER
        return self._linger_until - now

    def _without_locked(self, writes: list[Write]) -> list[Write]:
        """Return the writes without those that must wait behind an earlier write of their activity."""
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
            (self._first if write.is_start else self._others).append(write)

    def _write(self, batch: list[Write]) -> None:
        try:
            applied = self._apply_until_database_answers([write.operation for write in batch])
        except CommitOutcomeUnknown as error:
            # The transaction may have been committed; separate transactions could write it a second time.
            for write in batch:
                _notify(write, error)
            return
        except Exception as error:  # noqa: BLE001  # passed to the callback or future of the write
            if len(batch) > 1:
                # A write that the database rejects must not prevent the others.
                for write in batch:
                    if self._without_locked([write]):
                        self._write([write])
            elif classify_outage(error) is Outage.LOCKED and not self._giving_up.is_set():
                self._set_aside(batch[0], error)
            else:
                _notify(batch[0], error)
            return
        for write, outcome in zip(batch, applied, strict=True):
            if isinstance(outcome, ActivityLocked):
                self._set_aside(write, outcome)
            else:
                _notify(write, outcome)

    def _set_aside(self, write: Write, error: Exception) -> None:
        agent_type = error.agent_type if isinstance(error, ActivityLocked) else ""
        label = f"{write.agent_id} ({agent_type})" if agent_type else str(write.agent_id)
        self._locked.set_aside(write.agent_id, write, label)

    def _apply_until_database_answers(self, operations: list[Operation]) -> list[Activity | Exception]:
        pause, rejections = FIRST_PAUSE, 0
        unknown_outcome: CommitOutcomeUnknown | None = None
        while True:
            try:
                return list(apply(operations, unknown_outcome))
            except (DatabaseError, InterfaceError, ActivityLocked) as error:
                outage = classify_outage(error)
                if isinstance(error, CommitOutcomeUnknown):
                    unknown_outcome = error
                elif outage is None:
                    raise  # an error of the statement, not an outage
                connections[database()].close()
                if self._giving_up.is_set():
                    raise unknown_outcome or error from error
                if unknown_outcome is None and outage is Outage.LOCKED and not _is_lock_of_all(error):
                    raise
                # PostgreSQL also reports a value that is too large as an OperationalError, which a retry cannot fix.
                # A commit with an unknown outcome is always retried.
                rejections += unknown_outcome is None and outage is Outage.UNCERTAIN and _is_answering()
                if rejections >= MAX_REJECTIONS:
                    raise
                logger.warning(f"{_CAUSES[outage or Outage.UNCERTAIN]} (%s); trying again in %.2f s.", error, pause)
                self._giving_up.wait(pause)
                pause = min(2 * pause, MAX_PAUSE)


_CAUSES = {
    Outage.LOCKED: "The database does not answer, since another transaction holds a lock",
    Outage.UNAVAILABLE: "The database does not accept writes at present",
    Outage.UNCERTAIN: "The database does not answer",
}


def _taken(waiting: deque[Write], limit: int) -> list[Write]:
    """Remove up to `limit` writes from a queue; from here on they cannot be canceled.

    Until then, the cancellation of a handler that awaits a write also cancels the write.
    """
    taken: list[Write] = []
    with suppress(IndexError):
        while len(taken) < limit:
            write = waiting.popleft()
            if write.future is None or write.future.set_running_or_notify_cancel():
                taken.append(write)
    return taken


def _notify(write: Write, outcome: Activity | Exception) -> None:
    try:
        write.callback(outcome)
    except Exception:  # a bug of this package must not prevent other notifications
        logger.exception("Could not report the result of %s.", write.operation)


def _end(future: Future[Activity], outcome: Activity | Exception) -> None:
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _is_answering() -> bool:
    """Return whether the database replies, although it does not accept a write."""
    try:
        with connections[database()].cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        return False
    return True


def _is_lock_of_all(error: Exception) -> bool:
    """Return whether the lock prevents all writes, as on SQLite's file or on a table, and not only on a row."""
    if connections[database()].vendor == "sqlite" or "database is locked" in str(error):
        return True
    return isinstance(error, ActivityLocked) and can_skip_locked(database())
