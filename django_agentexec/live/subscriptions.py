"""Subscriptions of one client: an activity with its streamed text, or a feed, and the client's position in it.

The hub offers the states that it has read; a subscription accepts what is new to its client and drops the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from ..models import ApprovalStatus, Status
from ..queues import Chunk
from ..queues.live import START
from . import messages
from .call_feed import CallFeed, ReadCall
from .messages import MAX_DELTA, MAX_LINES_SIZE, ApprovalChange, Gap, Json, Line, Message, Retraction, Rewind
from .reading import MAX_LINES, ActivityState, as_of
from .send_buffer import SendBuffer
from .topics import activity_topic, feed_topic

if TYPE_CHECKING:
    from ..policy import User

OnDrained = Callable[["Subscription"], None]
MAX_ACTIVITIES = 1_000  # of a feed: those whose state is remembered, and those that wait for a slow client
MAX_WAITING = 200_000  # characters of streamed text that wait for a slow client; the rest stays in the store


class TextFeed:
    """The streamed text of one activity for one client, after the client's position.

    Pieces carry the fence and the number of characters before them. A jump is therefore noticed wherever text was lost:
    dropped by its writer, trimmed by the store, or missed by a slow or late client. Under a new fence the text begins
    again.
    """

    def __init__(self, agent_id: UUID, stream_after: str | None) -> None:
        self.agent_id = agent_id
        self.position = stream_after or START
        self.must_resume = self.position != START
        """Whether `resume` must be called first, with the piece at the client's position."""
        self.has_gap = False
        """Whether the client lacks text and has not received the stored text instead."""
        self._fence = 0
        self._attempt = 0
        self._offsets: dict[str, int] = {}
        self._knows_start = not self.must_resume
        self._waiting: list[Chunk | Gap | Retraction | Rewind] = []
        self._size = 0
        self._stored = ""
        self._stored_sent = 0
        self._has_shown = self.must_resume
        """Whether the client may show text."""

    @property
    def has_room(self) -> bool:
        """Whether further text may wait."""
        return self._size < MAX_WAITING

    @property
    def is_waiting(self) -> bool:
        """Whether there is text to send."""
        return bool(self._waiting) or self._stored_sent < len(self._stored)

    def resume(self, last: Chunk | None) -> None:
        """Begin after `last`, the piece at the client's position; None if the store has dropped it."""
        self.must_resume = False
        if last is None:
            self.add_gap(None)
            return
        self._fence, self._attempt = last.fence, last.attempt
        if last.offset >= 0:
            self._offsets[last.writer] = last.end

    def accept(self, chunks: Sequence[Chunk]) -> bool:
        """Take the pieces after the position; False if some were left because too much text waits."""
        for chunk in chunks:
            if stream_key(chunk.stream_id) <= stream_key(self.position):
                continue
            if not self.has_room:
                return False
            self.position = chunk.stream_id
            if not 0 < chunk.fence < self._fence:  # else written by a worker that has lost the activity
                self._accept_chunk(chunk)
        return True

    def add_gap(self, missing: int | None) -> None:
        """Notify the client that `missing` characters (None: an unknown number) are missing at this point."""
        self.has_gap = True
        self._waiting.append(messages.gap(self.agent_id, self._attempt, self._fence, missing))

    def replace(self, text: str) -> None:
        """Send the stored text in place of all that the client has."""
        self.has_gap = False
        self._drop_waiting()
        self._stored, self._stored_sent = text, 0

    def take(self) -> list[Message]:
        """Return a limited number of messages; `is_waiting` is true if there are more."""
        taken: list[Message] = [
            messages.delta(each) if isinstance(each, Chunk) else each for each in _joined(self._waiting)
        ]
        self._has_shown = self._has_shown or bool(taken)
        self._drop_waiting()
        end = min(len(self._stored), self._stored_sent + MAX_WAITING)
        for offset in range(self._stored_sent, end, MAX_DELTA):
            taken.append(messages.stored_text(self.agent_id, self._attempt, self._fence, self._stored, offset))
        self._stored_sent = end
        return taken

    def _accept_chunk(self, chunk: Chunk) -> None:
        if chunk.fence > self._fence and (self._fence or self._knows_start):
            self._restart()
            if self._has_shown and chunk.rewinds_to < 0 and not chunk.retracts:  # these withdraw the text themselves
                self._waiting.append(messages.restart(chunk))
            self._has_shown = False
        self._fence, self._attempt = max(chunk.fence, self._fence), chunk.attempt
        if chunk.retracts:
            self._restart()
            self._waiting.append(messages.retraction(chunk, self._fence))
            self._offsets[chunk.writer] = chunk.offset
            return
        if chunk.offset >= 0:
            expected = self._offsets.get(chunk.writer, 0 if self._knows_start else chunk.offset)
            if chunk.offset > expected:
                self.add_gap(chunk.offset - expected)
            self._offsets[chunk.writer] = chunk.end
        if chunk.rewinds_to >= 0:
            self._waiting.append(messages.rewind(chunk, self._fence))
        if chunk.text:
            self._waiting.append(chunk)
            self._size += len(chunk.text)

    def _restart(self) -> None:
        """Drop the text before, which the client will remove."""
        self._drop_waiting()
        self._offsets = {}
        self._knows_start, self.has_gap = True, False
        self._stored, self._stored_sent = "", 0

    def _drop_waiting(self) -> None:
        self._waiting, self._size = [], 0


def stream_key(stream_id: str) -> tuple[int, int]:
    """Return the sort key of a position in a stream."""
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


def _joined(waiting: Sequence[Chunk | Gap | Retraction | Rewind]) -> list[Chunk | Gap | Retraction | Rewind]:
    """Join consecutive pieces of the same origin, so that a slow or late client receives few messages."""
    joined: list[Chunk | Gap | Retraction | Rewind] = []
    for each in waiting:
        last = joined[-1] if joined else None
        if isinstance(each, Chunk) and isinstance(last, Chunk) and _are_joinable(last, each):
            text = last.text + each.text
            joined[-1] = Chunk(each.agent_id, text, each.attempt, each.stream_id, each.fence, label=each.label)
        else:
            joined.append(each)
    return joined


def _are_joinable(first: Chunk, second: Chunk) -> bool:
    is_same = (first.attempt, first.fence, first.label) == (second.attempt, second.fence, second.label)
    return is_same and len(first.text) + len(second.text) <= MAX_DELTA


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
        self._has_changed = False
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
            self._send_buffer.mark_pending(self)

    def end_deleted(self) -> None:
        """Notify the client that the activity was deleted."""
        self.is_ready = False
        self._send_buffer.put(messages.activity_deleted(self.agent_id))

    def take(self) -> list[Message]:
        """Return text and calls before the state, so that a client that receives the final status has all of them."""
        taken = self.text.take()
        if self.text.is_waiting:  # a long text; the state follows after the rest
            self._send_buffer.mark_pending(self)
            return taken
        taken += self._approvals
        self._approvals = []
        taken += self.calls.take()
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
