"""Group commit: writes that arrive while one transaction is under way share the next one.

One thread per worker process, with its own database connection. Handing in a write costs nothing;
its future ends when the write is committed, or carries why it was refused.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from django.db import InterfaceError, OperationalError, connections

from ..activity.operations import Operation
from ..activity.writer import Undecided, apply, database
from ..exceptions import StaleAttempt
from ..models import Activity
from .vital import start_vital_thread

logger = logging.getLogger(__name__)

Write = tuple[Operation, "Future[Activity]"]

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
        """Hand in a write. The future's callbacks run in the recorder's thread: keep them short."""
        future: Future[Activity] = Future()
        self._writes.put((operation, future))
        if self._ended.is_set():
            self._refuse_the_rest()
        return future

    def stop(self, timeout: float) -> bool:
        """Write what was handed in, then end; False if that took longer than `timeout` seconds."""
        self._writes.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout)
        self._giving_up.set()
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._write(batch)
        finally:
            self._ended.set()
            self._refuse_the_rest()
            connections.close_all()

    def _refuse_the_rest(self) -> None:
        """End the futures of writes that came after the end, so that no thread waits for them for ever."""
        while not self._writes.empty():
            try:
                write = self._writes.get_nowait()
            except Empty:
                return
            if write is not None and write[1].set_running_or_notify_cancel():
                write[1].set_exception(StaleAttempt("The worker has ended; this write came too late."))

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
            if write[1].set_running_or_notify_cancel():
                batch.append(write)
        return batch

    def _write(self, batch: list[Write]) -> None:
        try:
            applied = self._apply_until_database_answers([operation for operation, _ in batch])
        except Exception as error:  # noqa: BLE001  # handed on to whoever waits for the write
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            # One write that the database does not take must not take the others down.
            for write in batch:
                self._write([write])
            return
        for (_, future), outcome in zip(batch, applied, strict=True):
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

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
