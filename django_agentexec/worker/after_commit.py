"""Threads for the effects of commits: public signals, and completion hooks of parents and trackers.

They are separate from the committer, so that neither a slow receiver nor a locked row of a parent delays writes.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from django.db import close_old_connections, connections

from ..activity.completion_hooks import run_hooks
from ..activity.store import Change, send_change_signals
from ..background import start_daemon_thread
from ..models import Activity
from ..signals import (
    WARN_INTERVAL,
    activities_changed,
    activity_changed,
    activity_ended,
    approval_decided,
    approval_requested,
)

logger = logging.getLogger(__name__)

SIGNALS = (activities_changed, activity_changed, activity_ended, approval_requested, approval_decided)
MAX_WAITING_CHANGES = 10_000  # changes that wait for their signals; at some kilobytes per row, tens of megabytes
STUCK_RECEIVER = 5.0  # seconds of one call after which a receiver is named in the log while it still runs
IDLE_TIMEOUT = 1.0  # seconds without work after which the thread closes its database connections


class _Thread(ABC):
    """A daemon thread that processes queued items in order, in batches."""

    name: str

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_daemon_thread(self.name, self._run)

    def stop(self, timeout: float) -> bool:
        """Process the waiting items, then end; return False if that takes longer than `timeout` seconds."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @abstractmethod
    def _has_work(self) -> bool:
        """Return whether items wait; the caller holds the lock."""

    @abstractmethod
    def _work(self) -> None:
        """Process waiting items."""

    def _run(self) -> None:
        try:
            while self._wait():
                try:
                    self._work()
                except Exception:  # an error must not affect later items
                    logger.exception(
                        "Thread %s of this worker process failed and dropped its current items.", self.name
                    )
                close_old_connections()
        finally:
            connections.close_all()

    def _wait(self) -> bool:
        """Wait for work; return False if the thread is stopping and nothing waits."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_work() or self._is_stopping, IDLE_TIMEOUT):
                connections.close_all()
                self._changed.wait_for(lambda: self._has_work() or self._is_stopping)
            return self._has_work()


class SignalSender(_Thread):
    """A thread that sends the public signals, in the order of the commits.

    Its queue is bounded: while `MAX_WAITING_CHANGES` changes wait for slow receivers, signals of further changes are
    dropped and an error is logged. The rows are written in any case.
    """

    name = "agentexec-signals"

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[Sequence[Change]] = deque()
        self._count = 0
        self._dropped = 0
        self._last_warning = -WARN_INTERVAL

    def send(self, changes: Sequence[Change]) -> None:
        """Queue the signals of one commit; never blocks."""
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
        if self._dropped and now - self._last_warning >= WARN_INTERVAL:
            self._last_warning = now
            dropped, self._dropped = self._dropped, 0
            receivers = {name for signal in SIGNALS for name in signal.receiver_names(Activity)}
            logger.error(
                "Signals were not sent (changes: %d): more than %d wait for slow receivers (%s).",
                dropped,
                MAX_WAITING_CHANGES,
                ", ".join(sorted(receivers)),
            )


class HookRunner(_Thread):
    """A thread that runs completion hooks; ends that arrive meanwhile share the next call."""

    name = "agentexec-hooks"

    def __init__(self) -> None:
        super().__init__()
        self._ended: list[Activity] = []

    def add(self, ended: Sequence[Activity]) -> None:
        """Queue the completion hooks of these activities; never blocks."""
        with self._changed:
            self._ended.extend(ended)
            self._changed.notify_all()

    def _has_work(self) -> bool:
        return bool(self._ended)

    def _work(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
        run_hooks(ended)
