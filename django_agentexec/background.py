"""What any thread notes in microseconds, one daemon thread of the process does in rounds, many at a time.

For what must never keep its caller waiting, nor fail it: hints for followers, and streamed text.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod

from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from .exceptions import QueueUnavailable
from .forks import reset_after_fork

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0  # seconds after an error; twice as long after each that follows
MAX_PAUSE = 16.0
MAX_FAILURES = 10  # to count; the pause is at its longest by then


class BatchingThread(ABC):
    """Its thread starts with the first note, and again in a forked process."""

    thread_name: str

    def __init__(self) -> None:
        self._begin()
        reset_after_fork(self._begin)

    def _begin(self) -> None:
        """Have nothing noted, and no thread: a forked process has the parent's locks in whatever state they were."""
        self._lock = threading.Lock()
        self._noted = threading.Event()
        self._hurry = threading.Event()
        self._is_empty = threading.Event()
        self._is_empty.set()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _round(self) -> None:
        """Do what is noted, having taken it under the lock."""

    @abstractmethod
    def _pause(self) -> float:
        """Return the seconds from the begin of a round to that of the next one."""

    def flush(self, seconds: float) -> bool:
        """Do what is noted without a pause, and wait for it; False if that took longer."""
        self._hurry.set()
        try:
            return self._is_empty.wait(seconds)
        finally:
            self._hurry.clear()

    def _wake(self) -> None:
        """Something is noted; by who holds the lock."""
        if self._noted.is_set():
            return  # the usual case while much happens: it costs a worker under a microsecond
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self.thread_name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no room for a thread: the next note tries again
                return
            self._thread = thread
        self._is_empty.clear()
        self._noted.set()

    def _run(self) -> None:
        while True:
            self._wait()
            started = time.monotonic()
            self._noted.clear()
            try:
                self._round()
            except Exception:
                logger.exception("A round of %s failed.", self.thread_name)
            with self._lock:
                if not self._noted.is_set():
                    self._is_empty.set()
            self._hurry.wait(max(0.0, started + self._pause() - time.monotonic()))

    def _wait(self) -> None:
        """Wait until something is noted."""
        self._noted.wait()


class PoolService(ABC):
    """Calls `step` again and again, in a thread, and never dies of an error."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        """The name of the pool."""
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"agentexec-{type(self).__name__}", daemon=True)

    @abstractmethod
    def step(self) -> float:
        """Do what there is to do, and return the seconds until there may be more."""

    @property
    def stopping(self) -> bool:
        """Whether it is to end: a long step looks here."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let it end after the present step; returns at once."""
        self._stopping.set()

    def join(self, seconds: float) -> None:
        """Wait for its end, `seconds` at most."""
        if self._thread.ident is not None:
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
            logger.warning("%s has to wait: %s", type(self).__name__, error)
        except Exception:
            logger.exception("%s failed; it goes on.", type(self).__name__)
        pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0**self._failures)
        self._failures = min(self._failures + 1, MAX_FAILURES)
        return pause
