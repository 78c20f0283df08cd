"""The package's signals. Every signal about activities is sent after the commit, never before.

In web processes and commands, receivers run in the thread that made the change. In worker processes, a separate thread
runs them one after the other, in the order of the commits, so that a slow receiver delays neither the worker nor its
writes. An exception of a receiver is logged and has no other effect. See docs/signals.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger(__name__)

SLOW_RECEIVER = 1.0  # seconds; a longer call of a receiver is logged with its name
WARN_INTERVAL = 60.0  # seconds between two warnings about the same receiver


class WatchedSignal(Signal):
    """A signal that logs the names of slow receivers."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.running: tuple[str, float] | None = None
        """The receiver that is being called, and the start of the call (`time.monotonic`)."""
        self._warned: dict[str, float] = {}

    def _live_receivers(self, sender: Any) -> Any:
        receivers, async_receivers = super()._live_receivers(sender)
        return [self._timed(receiver) for receiver in receivers], [
            self._atimed(receiver) for receiver in async_receivers
        ]

    def receiver_names(self, sender: object) -> list[str]:
        """Return the names of the receivers that are connected for this sender."""
        receivers, async_receivers = super()._live_receivers(sender)
        return [_name_of(receiver) for receiver in (*receivers, *async_receivers)]

    def warn(self, receiver: str, seconds: float, state: str) -> None:
        """Log the duration of a receiver's call, at most once a minute; `state` is "took" or "has been running for"."""
        now = time.monotonic()
        if now - self._warned.get(receiver, -WARN_INTERVAL) >= WARN_INTERVAL:
            self._warned[receiver] = now
            logger.warning(
                "The receiver %s of %s %s %.1f s. Receivers run one after the other: enqueue a task for slow work.",
                receiver,
                self.name,
                state,
                seconds,
                extra={"receiver": receiver, "signal": self.name, "duration": seconds},
            )

    def _timed(self, receiver: Callable[..., object]) -> Callable[..., object]:
        name = _name_of(receiver)

        @wraps(receiver, updated=())
        def timed(*args: Any, **kwargs: Any) -> object:
            started = time.monotonic()
            self.running = name, started
            try:
                return receiver(*args, **kwargs)
            finally:
                self._end(name, started)

        return timed

    def _atimed(self, receiver: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        name = _name_of(receiver)

        @wraps(receiver, updated=())
        async def timed(*args: Any, **kwargs: Any) -> object:
            started = time.monotonic()
            self.running = name, started
            try:
                return await receiver(*args, **kwargs)
            finally:
                self._end(name, started)

        return timed

    def _end(self, name: str, started: float) -> None:
        self.running = None
        seconds = time.monotonic() - started
        if seconds >= SLOW_RECEIVER:
            self.warn(name, seconds, "took")


def _name_of(receiver: object) -> str:
    qualname = getattr(receiver, "__qualname__", None) or type(receiver).__qualname__
    return f"{getattr(receiver, '__module__', '?')}.{qualname}"


activity_changed = WatchedSignal("activity_changed")
"""One committed change of one activity.

Arguments: `activity`, the row as committed; `log`, the `ActivityLog` line of the change, or None if the change wrote
none; and `operation`, the change (see `activity.transitions`), or None for a new row. Do not save the row. Fields that
the change did not need may be deferred, and cost a query when they are read.
"""

activities_changed = WatchedSignal("activities_changed")
"""All changes of one commit at once, in order. Argument: `changes`, a list of (activity, log, operation)."""

activity_ended = WatchedSignal("activity_ended")
"""An activity has ended. Arguments: `agent_id`; `status`, `complete`, `error` or `canceled`; `metadata`, a dictionary.

A retried activity may end several times.
"""

approval_requested = WatchedSignal("approval_requested")
"""An activity waits for a decision. Argument: `approval`, the `Approval`. Sent once per request, after the commit."""

approval_decided = WatchedSignal("approval_decided")
"""A decision or answer was given, or an approval has expired. Argument: `approval`, with the decision.

Sent after the commit. Approvals that become void because their activity ends are not announced.
"""

budget_threshold = WatchedSignal("budget_threshold")
"""A budget has reached 50, 80 or 100 percent of its limit, once per period or run and threshold.

Arguments: `ledger`, the `BudgetLedger` with what was spent; `budget`, its `Budget`, or None if code declares it; and
`threshold`, a number of percent. 100 is also sent when a call does not fit into what is not spent. Sent after the
commit.
"""

changes_committed = Signal()
"""Internal: as `activities_changed`, but sent in the thread that committed. Receivers must return in microseconds."""

calls_finished = Signal()
"""Internal: calls of an activity have ended. Arguments: `activity`, `calls`. Sent as `changes_committed`."""

text_streamed = Signal()
"""Text was appended to streams. Argument: `agent_ids`. Sent several times a second while activities stream."""

worker_started = Signal()
"""A worker process is about to claim its first activity. Argument: `worker`, its name."""

worker_stopped = Signal()
"""A worker process has finished its last activity. Argument: `worker`, its name."""
