"""Background threads: batching threads of a process, services of a pool, and the start of every daemon thread.

No other module starts a thread, except for executors and for the guardian of the embedded server, which runs without
Django. `start_critical_thread` starts the threads that a worker cannot run without.

`BatchingThread` serves work that must neither delay nor fail its caller, such as change notices and streamed text.
`PoolService` repeats a step in the pool process, such as the scheduler.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from .exceptions import QueueUnavailable
from .forks import reset_after_fork

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0  # seconds after the first error; doubled after each further error
MAX_PAUSE = 16.0
MAX_FAILURES = 10  # upper bound of the count of errors; the pause has reached its maximum by then
EXIT_DEFECT = 1


def start_daemon_thread(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a daemon thread that calls `target` with `arguments`, and return it."""
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def start_critical_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread that calls `run`; an exception ends the process with exit code 1.

    A worker without one of its threads would look alive and keep its claims without working on them. After its end,
    the pool returns its claims to the queue and starts another process.
    """
    return start_daemon_thread(name, _run_or_exit, name, run)


def _run_or_exit(name: str, run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException:  # no exception may end this thread unnoticed
        logger.critical("Thread %s of this worker process failed; the process ends.", name, exc_info=True)
        logging.shutdown()
        os._exit(EXIT_DEFECT)


class BatchingThread(ABC):
    """Batches work from many threads: callers enqueue items cheaply, and one daemon thread flushes them periodically.

    The thread starts with the first item, and again in a forked process. Subclasses store items under `_lock` and
    call `_wake`.
    """

    thread_name: str

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        """Discard items, locks and thread: a forked process inherits locks in an undefined state."""
        self._lock = threading.Lock()
        self._has_items = threading.Event()
        self._flush_requested = threading.Event()
        self._is_empty = threading.Event()
        self._is_empty.set()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _process_batch(self) -> None:
        """Take the items under the lock and process them."""

    @abstractmethod
    def _interval(self) -> float:
        """Return the seconds from the start of one batch to the start of the next."""

    def flush(self, seconds: float) -> bool:
        """Process all items without a pause and wait for it; return False after `seconds`."""
        self._flush_requested.set()
        try:
            return self._is_empty.wait(seconds)
        finally:
            self._flush_requested.clear()

    def _wake(self) -> None:
        """Notify the thread of an item; the caller holds the lock."""
        if self._has_items.is_set():
            return  # the usual case under load; costs the caller less than a microsecond
        if self._thread is None:
            try:
                self._thread = start_daemon_thread(self.thread_name, self._run)
            except RuntimeError:  # the system cannot start a thread: the next item tries again
                return
        self._is_empty.clear()
        self._has_items.set()

    def _run(self) -> None:
        while True:
            self._wait()
            started = time.monotonic()
            self._has_items.clear()
            try:
                self._process_batch()
            except Exception:
                logger.exception("Thread %s failed to process a batch.", self.thread_name)
            with self._lock:
                if not self._has_items.is_set():
                    self._is_empty.set()
            self._flush_requested.wait(max(0.0, started + self._interval() - time.monotonic()))

    def _wait(self) -> None:
        """Wait for an item."""
        self._has_items.wait()


class PoolService(ABC):
    """A service of a pool: calls `step` repeatedly in a daemon thread. Errors are logged and never end it."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        """The name of the pool."""
        self._failures = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def step(self) -> float:
        """Do the due work and return the seconds until the next step."""

    @property
    def stopping(self) -> bool:
        """Whether the service is to end; a long step checks it."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_daemon_thread(f"agentexec-{type(self).__name__}", self._run)

    def stop(self) -> None:
        """Request the end after the current step, and return at once."""
        self._stopping.set()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, for at most `seconds`."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            close_old_connections()
            self._stopping.wait(self._safe_step())
            close_old_connections()
        connections.close_all()

    def _safe_step(self) -> float:
        try:
            pause = max(0.0, self.step())
            self._failures = 0
            return pause
        except (QueueUnavailable, DatabaseError, InterfaceError) as error:
            logger.warning("%s is waiting for the database or the queue: %s", type(self).__name__, error)
        except Exception:
            logger.exception("%s failed; it will try again.", type(self).__name__)
        pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0**self._failures)
        self._failures = min(self._failures + 1, MAX_FAILURES)
        return pause
