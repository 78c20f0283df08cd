"""Writes to rows that another transaction has locked: set aside, so that all others are committed meanwhile."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

logger = logging.getLogger(__name__)

W = TypeVar("W")

FIRST_PAUSE = 0.01  # seconds until the first retry, since most locks are held for milliseconds
MAX_PAUSE = 0.5
WARN_AFTER = 1.0  # seconds of a lock until the first warning
WARN_INTERVAL = 60.0
BATCH_WINDOW = 0.05  # seconds: retries that are due within them share a transaction


@dataclass
class _Backlog(Generic[W]):
    """The writes of one activity, in order."""

    since: float
    due: float
    pause: float = FIRST_PAUSE
    warned: float | None = None
    label: str = ""
    writes: deque[W] = field(default_factory=deque)


class LockedWrites(Generic[W]):
    """Writes that wait, grouped by the activity whose row is locked. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._backlogs: dict[UUID, _Backlog[W]] = {}
        self._tried: dict[UUID, _Backlog[W]] = {}
        self._clock = clock

    def __contains__(self, agent_id: UUID) -> bool:
        return agent_id in self._backlogs

    def __len__(self) -> int:
        return len(self._backlogs)

    def append(self, agent_id: UUID, write: W) -> None:
        """Append a new write to the waiting writes of its activity, of which there must be some."""
        self._backlogs[agent_id].writes.append(write)

    def set_aside(self, agent_id: UUID, write: W, label: str) -> None:
        """Let a write wait that has just failed; `label` names the activity in the log."""
        line = self._backlogs.get(agent_id)
        if line is None:
            now = self._clock()
            line = self._tried.pop(agent_id, None) or _Backlog(now, now, pause=FIRST_PAUSE / 2)
            line.pause = min(2 * line.pause, MAX_PAUSE)
            line.due, line.label = now + line.pause, label
            self._backlogs[agent_id] = line
            self._warn(agent_id, line, now)
        line.writes.append(write)

    def take_due(self, limit: int) -> list[W]:
        """Take the writes that are due for a retry, about `limit` at most. Ends the previous retry."""
        self.end_try()
        now = self._clock()
        if not any(line.due <= now for line in self._backlogs.values()):
            return []
        taken: list[W] = []
        for agent_id, line in list(self._backlogs.items()):
            if line.due <= now + BATCH_WINDOW and len(taken) < limit:
                taken.extend(line.writes)
                line.writes.clear()
                self._tried[agent_id] = self._backlogs.pop(agent_id)
        return taken

    def end_try(self) -> None:
        """Complete the writes that were retried and not set aside again."""
        for agent_id, line in self._tried.items():
            if line.warned is not None:
                logger.info(
                    "Activity %s is no longer locked by another transaction, after %.1f s.",
                    line.label,
                    self._clock() - line.since,
                    extra={"agent_id": str(agent_id)},
                )
        self._tried.clear()

    def seconds_until_due(self) -> float | None:
        """Return the seconds until the next retry, or None if nothing waits."""
        due = min((line.due for line in self._backlogs.values()), default=None)
        return None if due is None else max(0.0, due - self._clock())

    def take_all(self) -> Iterator[W]:
        """Take all writes, due or not."""
        self.end_try()
        while self._backlogs:
            _, line = self._backlogs.popitem()
            yield from line.writes

    def _warn(self, agent_id: UUID, line: _Backlog[W], now: float) -> None:
        if now - line.since < WARN_AFTER or (line.warned is not None and now - line.warned < WARN_INTERVAL):
            return
        line.warned = now
        logger.warning(
            "Activity %s has been locked by another transaction for %.1f s. Its writes wait, all others are committed. "
            "Find that transaction (PostgreSQL: pg_stat_activity, state 'idle in transaction') and end it.",
            line.label,
            now - line.since,
            extra={"agent_id": str(agent_id), "duration": now - line.since},
        )
