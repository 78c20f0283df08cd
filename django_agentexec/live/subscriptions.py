"""One client's subscriptions of activities and feeds, and the buffer of the messages for it.

The hub offers the states that it has read; a subscription accepts what is new to its client and drops the rest. It
keeps only the latest state, so that a slow client costs no memory: it receives fewer messages, not later ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from ..models import ApprovalStatus, Status
from ..queues import Chunk
from . import messages
from .call_feed import CallFeed, ReadCall
from .channel_layer import activity_topic, feed_topic
from .messages import MAX_LINES_SIZE, ApprovalChange, Json, Line, Message
from .reading import MAX_LINES, ActivityState, as_of
from .text_feed import TextFeed

if TYPE_CHECKING:
    from ..policy import User

OnDrained = Callable[["Subscription"], None]
MAX_ACTIVITIES = 1_000  # of a feed: those whose state is remembered, and those that wait for a slow client
PING_INTERVAL = 20.0  # seconds without a message after which a ping is sent


class SendBuffer:
    """The messages for one client, filled by its subscriptions, and emptied by its connection in one event loop."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._pending: dict[Subscription, None] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Add a message; a long message in parts."""
        self._messages.extend(messages.split(message))
        self._filled.set()

    def mark_pending(self, subscription: Subscription) -> None:
        """Take the messages of `subscription` when its turn comes."""
        self._pending[subscription] = None
        self._filled.set()

    def discard(self, subscription: Subscription) -> None:
        """Take no further messages of `subscription`."""
        self._pending.pop(subscription, None)

    async def next(self) -> Message:
        """Return the next message; a ping if there is none for 20 seconds."""
        return await self.get(PING_INTERVAL) or messages.ping()

    async def get(self, seconds: float) -> Message | None:
        """Return the next message, or None if there is none within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while (message := self._next()) is None:
                    self._filled.clear()
                    await self._filled.wait()
                return message
        except TimeoutError:
            return None

    def _next(self) -> Message | None:
        while not self._messages and self._pending:
            subscription = next(iter(self._pending))
            del self._pending[subscription]
            for message in subscription.take():
                self._messages.extend(messages.split(message))
        return self._messages.popleft() if self._messages else None


class ActivitySubscription:
    """A client's subscription of one activity. Not ready before `start`."""

    def __init__(self, send_buffer: SendBuffer, agent_id: UUID, stream_after: str | None = None) -> None:
        self.agent_id = agent_id
        self.topic = activity_topic(agent_id)
        self.text = TextFeed(agent_id, stream_after)
        self.calls = CallFeed(agent_id)
        self.position = 0
        """The newest log line that was sent to the client, or waits for it."""
        self.is_ready = False
        self.is_active = True
        self.version: tuple[datetime, str] | None = None
        """The version of the state that the client knows; None if it needs another in any case."""
        self.is_behind = False
        """Whether changes were left in the database because too much waits for the client already."""
        self.on_drained: OnDrained = lambda subscription: None
        """Called when the client has taken what waited and `is_behind` was set."""
        self._send_buffer = send_buffer
        self._item: Json = {}
        self._approvals: list[ApprovalChange] = []
        self._decisions: dict[str, str] = {}
        self._lines: list[Line] = []
        self._has_text = self._has_calls = self._has_changed = False  # what waits
        self._has_more = False

    def start(self, state: ActivityState) -> None:
        """Continue from the snapshot that was sent to the client."""
        self.position, self.version = state.last_log_id, None if state.has_more else state.version
        self._item, self.is_active = state.item, state.is_active
        self.calls.start(state.updated_at)
        self.is_ready = True
        self._accept_approvals(state.approvals)

    @property
    def is_queued(self) -> bool:
        """Whether the activity waits in a queue as far as the client knows, where a pause can hold it."""
        return self._item.get("status") == Status.QUEUED

    @property
    def knows_pending(self) -> bool:
        """Whether the client knows an approval without a decision."""
        return ApprovalStatus.PENDING in self._decisions.values()

    def _accept_approvals(self, approvals: Sequence[ApprovalChange]) -> None:
        """Send the approvals whose status is new to the client."""
        for each in approvals:
            id, status = each["approval"]["id"], each["approval"]["status"]
            if self._decisions.get(id) != status:
                self._decisions[id] = status
                self._approvals.append(each)
                self._send_buffer.mark_pending(self)

    def has_room(self) -> bool:
        """Return whether changes can be accepted now; sets `is_behind` otherwise."""
        has_room_for_lines = len(self._lines) < MAX_LINES and sum(line.size for line in self._lines) < MAX_LINES_SIZE
        has_room = has_room_for_lines and self.text.has_room and self.calls.has_room
        self.is_behind |= not has_room
        return has_room

    def accept(self, state: ActivityState) -> None:
        """Take what is new in `state`, which was read from this subscription's position or an earlier one."""
        self._accept_approvals(state.approvals)
        lines = [line for line in state.lines if line.id > self.position]
        if not lines and (state.has_more or state.version == self.version):
            return
        self._lines += lines
        self.position = lines[-1].id if lines else self.position
        self._item, self.is_active = state.item, state.is_active
        self.version = None if state.has_more else state.version
        self._has_changed, self._has_more = True, state.has_more
        self._send_buffer.mark_pending(self)

    def accept_calls(self, calls: Sequence[ReadCall]) -> None:
        """Take the calls that have started or ended since the last read."""
        self.calls.accept(calls)
        if self.calls.is_waiting:
            self._has_calls = True
            self._send_buffer.mark_pending(self)

    def accept_text(self, chunks: Sequence[Chunk]) -> bool:
        """Take the pieces of text after the position; False if some were left because too much text waits."""
        is_complete = self.text.accept(chunks)
        self.is_behind |= not is_complete
        self.send_text()
        return is_complete

    def send_text(self) -> None:
        """Send the text that waits, if there is any."""
        if self.text.is_waiting:
            self._has_text = True
            self._send_buffer.mark_pending(self)

    def add_text_gap(self) -> None:
        """Notify the client, with the next messages, that an unknown number of characters is missing."""
        self.text.add_gap(None)
        self._has_text = True

    def end_deleted(self) -> None:
        """Notify the client that the activity was deleted."""
        self.is_ready = False
        self._send_buffer.put(messages.activity_deleted(self.agent_id))

    def take(self) -> list[Message]:
        """Return text and calls before the state, so that a client that receives the final status has all of them."""
        taken: list[Message] = []
        if self._has_text:
            taken += self.text.take()
            self._has_text = self.text.is_waiting
            if self._has_text:  # a long text; the state follows after the rest
                self._send_buffer.mark_pending(self)
                return taken
        taken += self._approvals
        self._approvals = []
        if self._has_calls:
            taken += self.calls.take()
            self._has_calls = False
        if self._has_changed:
            *first, last = messages.group_lines(self._lines)
            for group in first:
                earlier = as_of(self._item, group[-1])
                taken.append(messages.activity_change(earlier, group, group[-1].id, has_more=True))
            taken.append(messages.activity_change(self._item, last, self.position, has_more=self._has_more))
        self._lines, self._has_changed = [], False
        if self.is_behind:
            self.is_behind = False
            self.on_drained(self)
        return taken


class FeedSubscription:
    """A client's subscription of an audience's feed. Not ready before `start`.

    Leaves out the activities that the client follows singly, as `is_followed` returns: their state comes with their log
    lines, so that a final status is never sent before the last of them.
    """

    def __init__(
        self,
        send_buffer: SendBuffer,
        audience: str,
        user: User,
        is_followed: Callable[[UUID], bool] = lambda agent_id: False,
    ) -> None:
        self.audience = audience
        self.user = user
        self.topic = feed_topic(audience)
        self.is_ready = False
        self.is_behind = False
        self.early_changes: dict[UUID, int] = {}
        """Changes before it was ready."""
        self.on_drained: OnDrained = lambda subscription: None
        """Called when the client has taken what waited and `is_behind` was set."""
        self._send_buffer = send_buffer
        self._is_followed = is_followed
        self._versions: dict[UUID, tuple[datetime, str]] = {}
        self._active: dict[UUID, None] = {}
        self._changed: dict[UUID, ActivityState] = {}

    def start(self, states: Sequence[ActivityState]) -> None:
        """Continue from the snapshot that was sent to the client."""
        for state in states:
            self._remember(UUID(state.item["agent_id"]), state)
        self.is_ready = True

    @property
    def active(self) -> list[UUID]:
        """The activities that are active as far as the client knows."""
        return list(self._active)

    def has_seen(self, state: ActivityState) -> bool:
        """Return whether the client knows this state already."""
        return self._versions.get(UUID(state.item["agent_id"])) == state.version

    def has_room(self) -> bool:
        """Return whether changes can be accepted now."""
        return len(self._changed) < MAX_ACTIVITIES

    def accept(self, state: ActivityState) -> None:
        """Take `state` if it is new."""
        agent_id = UUID(state.item["agent_id"])
        if self.has_seen(state):
            return
        if not self.has_room():
            self.is_behind = True
            return
        self._remember(agent_id, state)
        self._changed[agent_id] = state
        self._send_buffer.mark_pending(self)

    def take(self) -> list[Message]:
        """Return a message for each changed activity."""
        states = [state for agent_id, state in self._changed.items() if not self._is_followed(agent_id)]
        self._changed = {}
        if self.is_behind:
            self.on_drained(self)
        return [messages.activity_change(state.item, [], state.last_log_id) for state in states]

    def invalidate(self, agent_id: UUID) -> None:
        """Send this activity's state again at the next comparison: the client no longer follows it singly."""
        if self._versions.pop(agent_id, None) is not None:
            self._active[agent_id] = None  # compared even if it has ended: its final status may have been left out

    def _remember(self, agent_id: UUID, state: ActivityState) -> None:
        self._versions.pop(agent_id, None)
        self._versions[agent_id] = state.version
        self._active.pop(agent_id, None)
        if state.is_active:
            self._active[agent_id] = None
        for known in (self._versions, self._active):
            while len(known) > MAX_ACTIVITIES:
                del known[next(iter(known))]


Subscription = ActivitySubscription | FeedSubscription
