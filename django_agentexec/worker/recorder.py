"""Group commit: writes that arrive while one transaction is under way share the next one.

Starts go before all else, since a free slot waits for each of them; every other write belongs to an activity that
has started, so nothing overtakes what it depends on.

One thread per worker process, with its own database connection. Handing in a write costs nothing;
what became of it is told when it is committed or refused.
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

from django.db import InterfaceError, OperationalError, connections

from ..activity.operations import Operation
from ..activity.writer import Undecided, apply, database
from ..exceptions import StaleAttempt
from ..models import Activity
from .vital import start_vital_thread

logger = logging.getLogger(__name__)

Report = Callable[[Activity | Exception], None]
"""Is called with the row as it was committed, or with the reason of a refusal."""


class Write(NamedTuple):
    """An operation on its way into the database, and who wants to hear of it."""

    operation: Operation
    report: Report
    future: Future[Activity] | None = None
    goes_first: bool = False


LARGEST_BATCH = 500  # rows of one transaction: it should hold its locks for milliseconds only
FIRST_PAUSE = 0.05  # seconds between two tries while the database is away, doubled up to the longest
LONGEST_PAUSE = 2.0
MOST_REFUSALS = 5  # tries of a write that fails although the database answers


class Recorder:
    """Writes operations in the order in which they are handed in, many per transaction."""

    def __init__(self) -> None:
        self._writes: SimpleQueue[Write | None] = SimpleQueue()
        self._first: deque[Write] = deque()
        self._others: deque[Write] = deque()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._giving_up = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_vital_thread("agentexec-recorder", self._run)

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
        self._writes.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout)
        self._giving_up.set()
        return not self._thread.is_alive()

    def _put(self, write: Write) -> None:
        self._writes.put(write)
        if self._ended.is_set():
            self._refuse_the_rest()

    def _run(self) -> None:
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
        for waiting in (self._first, self._others):
            for write in _taken(waiting, len(waiting)):
                _report(write, StaleAttempt("The worker has ended; this write came too late."))

    def _next_batch(self) -> list[Write]:
        """Return what has arrived, at least one write; nothing once the end was handed in."""
        while True:
            self._sort_arrivals()
            if batch := _taken(self._first or self._others, LARGEST_BATCH):
                return batch
            if self._is_closed:
                return []
            self._sort(self._writes.get())

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
        except Undecided as error:
            # Nobody knows whether it has happened; one by one it might happen twice.
            for write in batch:
                _report(write, error)
            return
        except Exception as error:  # noqa: BLE001  # handed on to whoever waits for the write
            if len(batch) == 1:
                _report(batch[0], error)
                return
            # One write that the database does not take must not take the others down.
            for write in batch:
                self._write([write])
            return
        for write, outcome in zip(batch, applied, strict=True):
            _report(write, outcome)

    def _apply_until_database_answers(self, operations: list[Operation]) -> list[Activity | Exception]:
        pause, refusals = FIRST_PAUSE, 0
        undecided: Undecided | None = None
        while True:
            try:
                return list(apply(operations, undecided))
            except (OperationalError, InterfaceError) as error:
                if isinstance(error, Undecided):
                    undecided = error
                connections[database()].close()
                if self._giving_up.is_set():
                    raise undecided or error from error
                # A value too large for PostgreSQL is an OperationalError, too, and stays one. What was committed,
                # or nearly so, is not.
                refusals += undecided is None and _is_refusal(error)
                if refusals >= MOST_REFUSALS:
                    raise
                logger.warning("The database does not answer (%s); trying again in %.2f s.", error, pause)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


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


def _is_refusal(error: Exception) -> bool:
    """Whether the database is there and free, and yet does not take the write."""
    if "locked" in str(error):  # SQLite, whose lock another writer holds
        return False
    try:
        with connections[database()].cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError):
        return False
    return True
