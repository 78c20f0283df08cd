"""Calls of activities: which of their starts and ends each client lacks, and one read for many clients.

`CallFeed` has the events of one activity for one client. The hub calls `distribute_calls` for activities with new
calls, before their state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import F, Q
from django.db.models.functions import Coalesce

from ..calls.queries import CONTENT, CallSummarySchema, summary_of
from ..models import AgentCall
from ..threads import in_thread
from . import messages
from .message_types import CallFinished, CallStarted

if TYPE_CHECKING:
    from .subscriptions import ActivitySubscription

MAX_WAITING = 500  # events that wait for a slow client; the rest stays in the database
MAX_REMEMBERED = 1_000  # calls whose state the client knows
MAX_CALLS = 500  # of one read
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
        self.has_room = True
        """Whether further events may wait."""
        self._position: datetime | None = None
        self._known: dict[UUID, tuple[datetime, datetime | None]] = {}
        self._waiting: list[CallStarted | CallFinished] = []

    @property
    def since(self) -> datetime | None:
        """The time after which changes must be read; None before the start."""
        return self._position - MARGIN if self._position else None

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
        self.has_room = len(self._waiting) < MAX_WAITING

    def take(self) -> list[CallStarted | CallFinished]:
        """Return the events that wait."""
        taken, self._waiting, self.has_room = self._waiting, [], True
        return taken


async def distribute_calls(
    readers: Mapping[UUID, Sequence[ActivitySubscription]],
) -> set[ActivitySubscription]:
    """Read the calls of these activities that have started or ended, and offer them to the subscriptions.

    Return the subscriptions with more to read.
    """
    since: dict[UUID, datetime] = {}
    for agent_id, subscriptions in readers.items():
        if known := [position for each in subscriptions if (position := each.calls.since) is not None]:
            since[agent_id] = min(known)
    if not since:
        return set()
    found, has_more = await in_thread(_read_calls, since)
    for agent_id in since:
        for each in readers[agent_id]:
            each.accept_calls(found.get(agent_id, ()))
    return {each for agent_id in since for each in readers[agent_id]} if has_more else set()


def _read_calls(since: Mapping[UUID, datetime]) -> tuple[dict[UUID, list[ReadCall]], bool]:
    """Return the calls that have started or ended since these times, in this order, and whether there may be more.

    One query for all activities, without the content of calls.
    """
    wanted = Q()
    for agent_id, moment in since.items():
        wanted |= Q(activity_id=agent_id, changed_at__gt=moment)
    rows = AgentCall.objects.annotate(
        changed_at=Coalesce("finished_at", "started_at"), current_fence=F("activity__fence")
    ).filter(wanted, set_aside=0)
    found: dict[UUID, list[ReadCall]] = {}
    changed = list(rows.defer(*CONTENT).order_by("changed_at", "id")[: MAX_CALLS + 1])
    row: Any  # with the annotations
    for row in changed[:MAX_CALLS]:
        found.setdefault(row.activity_id, []).append(ReadCall(summary_of(row, row.current_fence), row.changed_at))
    return found, len(changed) > MAX_CALLS
