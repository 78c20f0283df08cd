"""Group commit: writes that arrive while one transaction is under way share the next one.

One thread per worker process, with its own database connection. Handing in a write costs nothing;
what became of it is told when it is committed or refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue

from django.db import InterfaceError, OperationalError, connections

from ..activity.operations import Operation
from ..activity.writer import Undecided, apply, database
from ..exceptions import StaleAttempt
from ..models import Activity
from .vital import start_vital_thread

logger = logging.getLogger(__name__)

Report = Callable[[Activity | Exception], None]
"""Is called with the row as it was committed, or with the reason of a refusal."""

Write = tuple[Operation, Report, "Future[Activity] | None"]

LARGEST_BATCH = 500  # rows of one transaction: it should hold its locks for milliseconds only
FIRST_PAUSE = 0.05  # seconds between two tries while the database is away, doubled up to the longest
LONGEST_PAUSE = 2.0
MOST_REFUSALS = 5  # tries of a write that fails although the database answers


class Recorder:
    """Writes operations in the order in which they are handed in, many per transaction."""

    def __init__(self) -> None:
        self._writes: SimpleQueue[Write | None] = SimpleQueue()
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
        self._put((operation, partial(_end, future), future))
        return future

    def tell(self, operation: Operation, report: Report) -> None:
        """Hand in a write that `report` is told of, in the recorder's thread: keep it short.

        For the worker's own writes, two per activity: a future costs more than all else here.
        """
        self._put((operation, report, None))

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
        while not self._writes.empty():
            try:
                write = self._writes.get_nowait()
            except Empty:
                return
            if write is not None and _is_wanted(write):
                _report(write, StaleAttempt("The worker has ended; this write came too late."))

    def _next_batch(self) -> list[Write]:
        """Return what has arrived, at least one write; nothing once the end was handed in."""
        batch: list[Write] = []
        while len(batch) < LARGEST_BATCH:
            try:
                write = self._writes.get(block=not batch)
            except Empty:
                break
            if write is None:
                if batch:
                    self._writes.put(None)  # this batch first, then the end
                break
            # From here on nobody can cancel it: a handler that is canceled while it awaits a write cancels
            # the write, too.
            if _is_wanted(write):
                batch.append(write)
        return batch

    def _write(self, batch: list[Write]) -> None:
        try:
            applied = self._apply_until_database_answers([write[0] for write in batch])
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
                # A value too large for PostgreSQL is an OperationalError, too, and stays one.
                refusals += _is_refusal(error)
                if self._giving_up.is_set() or refusals >= MOST_REFUSALS:
                    raise
                logger.warning("The database does not answer (%s); trying again in %.2f s.", error, pause)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


def _is_wanted(write: Write) -> bool:
    """Whether nobody has canceled the write; from here on nobody can."""
    future = write[2]
    return future is None or future.set_running_or_notify_cancel()


def _report(write: Write, outcome: Activity | Exception) -> None:
    try:
        write[1](outcome)
    except Exception:  # a defect of ours: it must not keep the others from hearing
        logger.exception("What became of %s could not be passed on.", write[0])


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
