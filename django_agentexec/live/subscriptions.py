"""What one client follows: an activity or a feed, and how far the client has been told about it.

The hub offers states that it has read; a subscription takes what is new to its client and drops the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from ..queues import Chunk
from .messages import MAX_LINES_SIZE, Json, Line, as_of, parts
from .reading import MAX_LINES, State
from .send_buffer import SendBuffer
from .text import TextFeed
from .topics import activity_topic, feed_topic

if TYPE_CHECKING:
    from ..policy import User

OnRoom = Callable[["Subscription"], None]
MAX_ACTIVITIES = 1_000  # of a feed: those whose state is remembered, and those that wait for a slow client


class ActivitySubscription:
    """One activity, followed by one client. Not ready before `start`."""

    def __init__(self, send_buffer: SendBuffer, agent_id: UUID, stream_after: str | None = None) -> None:
        self.agent_id = agent_id
        self.topic = activity_topic(agent_id)
        self.text = TextFeed(agent_id, stream_after)
        self.position = 0
        """The newest line that the client has been told, or is about to be."""
        self.is_ready = False
        self.is_active = True
        self.seen: datetime | None = None
        """Version of the row that the client has been told."""
        self.is_behind = False
        """Whether something was left in the database because too much waits for the client already."""
        self.on_room: OnRoom = lambda subscription: None
        """Called when the client has taken what waited, and something was left."""
        self._send_buffer = send_buffer
        self._item: Json = {}
        self._lines: list[Line] = []
        self._has_news = False
        self._has_more = False

    def start(self, state: State) -> None:
        """Go on from the snapshot that the client gets."""
        self.position, self.seen = state.last_log_id, None if state.has_more else state.updated_at
        self._item, self.is_active = state.item, state.is_active
        self.is_ready = True

    def has_room(self) -> bool:
        """Whether it can take news now; else it says so later, by `is_behind`."""
        has_lines_room = len(self._lines) < MAX_LINES and sum(line.size for line in self._lines) < MAX_LINES_SIZE
        has_room = has_lines_room and self.text.has_room
        self.is_behind |= not has_room
        return has_room

    def accept(self, state: State) -> None:
        """Take what is new in `state`, which was read from this subscription's position or an earlier one on."""
        lines = [line for line in state.lines if line.id > self.position]
        if not lines and (state.has_more or state.updated_at == self.seen):
            return
        self._lines += lines
        self.position = max(self.position, state.last_log_id if lines else 0)
        self._item, self.is_active = state.item, state.is_active
        self.seen = None if state.has_more else state.updated_at
        self._has_news, self._has_more = True, state.has_more
        self._send_buffer.announce(self)

    def accept_text(self, chunks: Sequence[Chunk]) -> bool:
        """Take the pieces of text after its position; False if some are left, for when there is room."""
        is_complete = self.text.accept(chunks)
        self.is_behind |= not is_complete
        self.announce_text()
        return is_complete

    def announce_text(self) -> None:
        """Have text sent that waits."""
        if self.text.is_waiting:
            self._send_buffer.announce(self)

    def vanish(self) -> None:
        """The activity was deleted: tell the client."""
        self.is_ready = False
        self._send_buffer.put(not_found(self.agent_id))

    def take(self) -> list[Json]:
        """Return the text before the state: who is told of the end has read everything."""
        messages = self.text.take()
        if self.text.is_waiting:  # a long one; its state comes after the rest
            self._send_buffer.announce(self)
            return messages
        if self._has_news:
            *first, last = parts(self._lines)
            for part in first:
                messages.append(activity_message(as_of(self._item, part[-1]), part, part[-1].id, has_more=True))
            messages.append(activity_message(self._item, last, self.position, has_more=self._has_more))
        self._lines, self._has_news = [], False
        if self.is_behind:
            self.is_behind = False
            self.on_room(self)
        return messages


class FeedSubscription:
    """An audience's feed, followed by one client. Not ready before `start`.

    It leaves out activities that the client follows singly, which `is_followed` knows: their state comes with their log
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
        self.missed: dict[UUID, int] = {}
        """What changed before it was ready."""
        self.on_room: OnRoom = lambda subscription: None
        """Called when the client has taken what waited, and something was left."""
        self._send_buffer = send_buffer
        self._is_followed = is_followed
        self._seen: dict[UUID, datetime] = {}
        self._active: dict[UUID, None] = {}
        self._news: dict[UUID, State] = {}

    def start(self, states: Sequence[State]) -> None:
        """Go on from the snapshot that the client gets."""
        for state in states:
            self._remember(UUID(state.item["agent_id"]), state)
        self.is_ready = True

    @property
    def active(self) -> list[UUID]:
        """The activities that the client believes to be active."""
        return list(self._active)

    def has_seen(self, state: State) -> bool:
        """Whether the client knows this state already."""
        return self._seen.get(UUID(state.item["agent_id"])) == state.updated_at

    def has_room(self) -> bool:
        """Whether it can take news now."""
        return len(self._news) < MAX_ACTIVITIES

    def accept(self, state: State) -> None:
        """Take `state` if it is new."""
        agent_id = UUID(state.item["agent_id"])
        if self.has_seen(state):
            return
        if not self.has_room():
            self.is_behind = True
            return
        self._remember(agent_id, state)
        self._news[agent_id] = state
        self._send_buffer.announce(self)

    def take(self) -> list[Json]:
        """Return a message for each changed activity."""
        states = [state for agent_id, state in self._news.items() if not self._is_followed(agent_id)]
        self._news = {}
        if self.is_behind:
            self.on_room(self)
        return [activity_message(state.item, [], state.last_log_id) for state in states]

    def forget(self, agent_id: UUID) -> None:
        """Send this activity's state again at the next comparison: the client follows it singly no more."""
        self._seen.pop(agent_id, None)

    def _remember(self, agent_id: UUID, state: State) -> None:
        self._seen.pop(agent_id, None)
        self._seen[agent_id] = state.updated_at
        self._active.pop(agent_id, None)
        if state.is_active:
            self._active[agent_id] = None
        for known in (self._seen, self._active):
            while len(known) > MAX_ACTIVITIES:
                del known[next(iter(known))]


Subscription = ActivitySubscription | FeedSubscription


def activity_message(item: Json, lines: Sequence[Line], last_log_id: int, *, has_more: bool = False) -> Json:
    """Return the message of a changed activity; `has_more` if further lines follow at once."""
    message: Json = {
        "type": "activity",
        "activity": item,
        "logs": [line.json for line in lines],
        "last_log_id": last_log_id,
    }
    return {**message, "has_more": True} if has_more else message


def not_found(agent_id: object) -> Json:
    """Return the message that there is no such activity (any more)."""
    text = f"There is no activity {agent_id}."
    return {"type": "error", "code": "not_found", "message": text, "agent_id": str(agent_id)}
