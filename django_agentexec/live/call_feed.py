"""The calls of one activity for one client: events for those that have started or ended since the last read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ..calls.queries import CallSummarySchema
from . import messages
from .message_types import CallFinished, CallStarted

MAX_WAITING = 500  # events that wait for a slow client; the rest stays in the database
MAX_REMEMBERED = 1_000  # calls whose state the client knows
# Seconds between the time in a row and its commit, and between the clocks of workers. Within this time, events repeat
# after a new subscription.
MARGIN = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class ReadCall:
    """A call as read, and the time of its last change."""

    call: CallSummarySchema
    changed_at: datetime


class CallFeed:
    """The events of calls after the client's position. A call that starts and ends between two reads has one event."""

    def __init__(self, agent_id: UUID) -> None:
        self.agent_id = agent_id
        self._position: datetime | None = None
        self._known: dict[UUID, tuple[datetime, datetime | None]] = {}
        self._waiting: list[CallStarted | CallFinished] = []

    @property
    def since(self) -> datetime | None:
        """The time after which changes must be read; None before the start."""
        return self._position - MARGIN if self._position else None

    @property
    def has_room(self) -> bool:
        """Whether further events may wait."""
        return len(self._waiting) < MAX_WAITING

    @property
    def is_waiting(self) -> bool:
        """Whether there are events to send."""
        return bool(self._waiting)

    def start(self, updated_at: datetime) -> None:
        """Continue from the snapshot of a row that was changed at this time."""
        self._position = updated_at

    def accept(self, calls: Sequence[ReadCall]) -> None:
        """Take the calls that the client does not know in their present state."""
        for read in calls:
            state = read.call.started_at, read.call.finished_at
            if self._known.get(read.call.id) != state:
                self._known.pop(read.call.id, None)
                self._known[read.call.id] = state
                self._waiting.append(messages.call_event(self.agent_id, read.call))
            self._position = max(self._position or read.changed_at, read.changed_at)
        while len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]

    def take(self) -> list[CallStarted | CallFinished]:
        """Return the events that wait."""
        taken, self._waiting = self._waiting, []
        return taken
