"""What follows the recorder's commits, in threads of its own: signals, and ends that concern parents and trackers.

Neither a slow receiver nor a parent whose row is locked may keep the recorder from writing.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from django.db import close_old_connections, connections

from ..activity.change_signals import Change, send_change_signals
from ..activity.completion_hooks import run_hooks
from ..models import Activity
from ..signals import WARN_INTERVAL, activities_changed, activity_changed, activity_ended

logger = logging.getLogger(__name__)

SIGNALS = (activity_changed, activities_changed, activity_ended)
MAX_WAITING_CHANGES = 10_000  # that wait for their signals; at some kilobytes per row, tens of megabytes
STUCK_RECEIVER = 5.0  # seconds of one call after which a receiver is named while it still runs
IDLE = 1.0  # seconds without work after which the thread closes its database connections


class _Thread(ABC):
    """Takes batches of items from a line and works on them in order, in one daemon thread."""

    name: str

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Work on what is waiting, then end; False if that took longer than `timeout` seconds."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @abstractmethod
    def _has_work(self) -> bool:
        """Whether something waits; called with the lock."""

    @abstractmethod
    def _work(self) -> None:
        """Work on what waits."""

    def _run(self) -> None:
        try:
            while self._wait():
                try:
                    self._work()
                except Exception:  # the next ones must not suffer
                    logger.exception("The thread %s of this worker process has skipped something.", self.name)
                close_old_connections()
        finally:
            connections.close_all()

    def _wait(self) -> bool:
        """Wait for work; False if there is none and no more will come."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_work() or self._is_stopping, IDLE):
                connections.close_all()
                self._changed.wait_for(lambda: self._has_work() or self._is_stopping)
            return self._has_work()


class Announcer(_Thread):
    """Sends the public signals, in the order of the commits.

    Bounded: where receivers are so slow that `MAX_WAITING_CHANGES` wait, further changes are not announced, which is
    logged. The rows themselves are written all the same.
    """

    name = "agentexec-signals"

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[Sequence[Change]] = deque()
        self._count = 0
        self._dropped = 0
        self._complained = -WARN_INTERVAL

    def announce(self, changes: Sequence[Change]) -> None:
        """Have the signals of one commit sent; never waits."""
        with self._changed:
            if self._count and self._count + len(changes) > MAX_WAITING_CHANGES:
                self._dropped += len(changes)
            else:
                self._waiting.append(changes)
                self._count += len(changes)
                self._changed.notify_all()
        self._report_slowness()

    def _has_work(self) -> bool:
        return bool(self._waiting)

    def _work(self) -> None:
        with self._changed:
            changes = self._waiting.popleft()
        try:
            send_change_signals(changes)
        finally:
            with self._changed:
                self._count -= len(changes)

    def _report_slowness(self) -> None:
        now = time.monotonic()
        for signal in SIGNALS:
            if (running := signal.running) is not None and now - running[1] >= STUCK_RECEIVER:
                signal.warn(running[0], now - running[1], "has been running for")
        if self._dropped and now - self._complained >= WARN_INTERVAL:
            self._complained = now
            dropped, self._dropped = self._dropped, 0
            receivers = {name for signal in SIGNALS for name in signal.receiver_names(Activity)}
            logger.error(
                "Signals of %d changes were not sent: more than %d wait for slow receivers (%s).",
                dropped,
                MAX_WAITING_CHANGES,
                ", ".join(sorted(receivers)),
            )


class FollowUps(_Thread):
    """Passes ends on to parents and trackers; ends that arrive meanwhile are passed on together."""

    name = "agentexec-follow-ups"

    def __init__(self) -> None:
        super().__init__()
        self._ended: list[Activity] = []

    def add(self, ended: Sequence[Activity]) -> None:
        """Have the ends of these activities passed on; never waits."""
        with self._changed:
            self._ended.extend(ended)
            self._changed.notify_all()

    def _has_work(self) -> bool:
        return bool(self._ended)

    def _work(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
        run_hooks(ended)
