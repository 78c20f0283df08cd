"""The package's signals. Every signal about activities is sent after the commit, never before.

In web processes and commands, receivers run in the thread that made the change. In worker processes, a thread of its
own runs them, one after the other and in the order of the commits, so that a slow receiver stops neither the worker
nor its writes. An exception of a receiver is logged and stops nothing. See docs/signals.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger(__name__)

SLOW_RECEIVER = 1.0  # seconds of one call after which a receiver is named in the log
WARN_EACH = 60.0  # seconds between two warnings about the same receiver


class WatchedSignal(Signal):
    """A signal that warns of receivers that take long, by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.running: tuple[str, float] | None = None
        """The receiver whose call is under way, and since when (`time.monotonic`)."""
        self._warned: dict[str, float] = {}

    def _live_receivers(self, sender: Any) -> Any:
        receivers, async_receivers = super()._live_receivers(sender)
        return [self._timed(one) for one in receivers], [self._atimed(one) for one in async_receivers]

    def receiver_names(self, sender: object) -> list[str]:
        """Return the names of the receivers that a signal of this sender has."""
        receivers, async_receivers = super()._live_receivers(sender)
        return [_name_of(one) for one in (*receivers, *async_receivers)]

    def warn(self, receiver: str, seconds: float, state: str) -> None:
        """Log that a receiver `state` (took, has been running for) so many seconds, once a minute."""
        now = time.monotonic()
        if now - self._warned.get(receiver, -WARN_EACH) >= WARN_EACH:
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

Arguments: `activity`, the row as it was committed; `log`, the `ActivityLog` line of the change, or None where the
change wrote none; and `operation`, what was done (see `activity.operations`), or None for a new row. Do not save the
row; columns that the change did not touch may be deferred, and cost a query when they are read.
"""

activities_changed = WatchedSignal("activities_changed")
"""All changes of one commit at once, in order. Argument: `changes`, a list of (activity, log, operation)."""

activity_ended = WatchedSignal("activity_ended")
"""An activity has ended. Arguments: `agent_id`; `status`, `complete`, `error` or `canceled`; `metadata`, a dictionary.

A retried activity may end several times.
"""

changes_committed = Signal()
"""Internal: as `activities_changed`, but always in the thread that committed. Receivers take microseconds."""

text_streamed = Signal()
"""Text of runs was added to their streams. Argument: `agent_ids`. Sent several times a second while runs stream."""

worker_started = Signal()
"""A worker process is about to claim its first activity. Argument: `worker`, its name."""

worker_stopped = Signal()
"""A worker process has finished its last activity. Argument: `worker`, its name."""
