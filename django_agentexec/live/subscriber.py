"""Following activities and feeds: a snapshot, then everything that changes, without gap and without duplicate.

`follow_activity` and `follow_feed` serve one client with one thing (server-sent events, tests);
a websocket follows many things through one `Follower`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from typing import TYPE_CHECKING
from uuid import UUID

from ..exceptions import InvalidOption
from ..models import Activity
from ..parsing import MAX_INT64
from ..policy import get_policy
from ..queues.live import is_stream_id
from .hub import current_hub
from .limits import read_turn
from .messages import Json
from .reading import State, read_activity, read_feed
from .send_buffer import SendBuffer
from .subscriptions import ActivitySubscription, FeedSubscription, Subscription
from .threads import in_thread

if TYPE_CHECKING:
    from ..policy import User

PING = 20.0  # seconds without a message after which one says that the line is alive
ASK_AGAIN = 25.0  # seconds after which a follower's permission is checked again; with the check itself, 30 at most

Allowed = Callable[[], Awaitable[bool]]


class Follower:
    """All that one client follows, and the messages for it, each as in docs/live.md but without `seq`.

    Belongs to one event loop, and must be closed by `close`. It asks no permission: the caller does. The snapshots of
    one `holder` (a user) are read few at a time, so that those of others need not wait for all of them.
    """

    def __init__(self, holder: Hashable = None) -> None:
        self.send_buffer = SendBuffer()
        self._holder = holder
        self._hub = current_hub()
        self._activities: dict[UUID, ActivitySubscription] = {}
        self._feed: FeedSubscription | None = None

    @property
    def activities(self) -> list[UUID]:
        """The activities that are followed singly."""
        return list(self._activities)

    async def follow_activity(self, agent_id: UUID, after: int | None = None, stream_after: str | None = None) -> None:
        """Follow an activity, its log from the line after `after` on and its text after that position.

        Raises `ActivityNotFound`, and `InvalidOption` for an impossible position. One that is followed already is
        followed again from there.
        """
        _check_positions(after, stream_after)
        await self.unfollow(agent_id)
        subscription = ActivitySubscription(self.send_buffer, agent_id, stream_after)
        self._activities[agent_id] = subscription
        try:
            await self._hub.join(subscription)
            async with read_turn(self._holder):
                detail, state = await in_thread(read_activity, agent_id, after)
        except BaseException:
            await self.unfollow(agent_id)
            raise
        message: Json = {"type": "snapshot", "activity": detail, "last_log_id": state.last_log_id}
        self.send_buffer.put({**message, "has_more": True} if state.has_more else message)
        subscription.start(state)
        self._hub.started(subscription)

    async def follow_feed(self, audience: str, user: User) -> None:
        """Follow the feed of `audience`, and see in its snapshot what `user` may see."""
        await self.unfollow_feed()
        self._feed = subscription = FeedSubscription(self.send_buffer, audience, user, self._activities.__contains__)
        await self._hub.join(subscription)
        async with read_turn(self._holder):
            states = await in_thread(_read_visible, user)
        self.send_buffer.put({"type": "snapshot", "activities": [state.item for state in states]})
        subscription.start(states)
        self._hub.started(subscription)

    def renew(self, user: User) -> None:
        """Go on as `user`, as just read from the database: what they may see may have changed."""
        if self._feed is not None:
            self._feed.user = user

    async def unfollow(self, agent_id: UUID) -> bool:
        """Follow this activity no more; return whether it was followed."""
        subscription = self._activities.pop(agent_id, None)
        if subscription is not None and self._feed is not None:
            self._feed.forget(agent_id)
            self._hub.look_at(self._feed)
        return await self._leave(subscription)

    async def unfollow_feed(self) -> None:
        """Follow no feed any more."""
        subscription, self._feed = self._feed, None
        await self._leave(subscription)

    async def next(self) -> Json:
        """Return the next message; a ping if there is none for 20 seconds."""
        return await self.send_buffer.get(PING) or {"type": "ping"}

    async def close(self) -> None:
        """Follow nothing any more."""
        await self.unfollow_feed()
        for agent_id in self.activities:
            await self.unfollow(agent_id)

    async def _leave(self, subscription: Subscription | None) -> bool:
        if subscription is None:
            return False
        self.send_buffer.forget(subscription)
        await self._hub.leave(subscription)
        return True


async def follow_activity(
    agent_id: UUID,
    *,
    after: int | None = None,
    stream_after: str | None = None,
    allowed: Allowed | None = None,
    holder: Hashable = None,
) -> AsyncIterator[Json]:
    """Yield the messages of one activity, without end: `snapshot`, then `activity`, `delta`, `gap`, `text`,
    `retract` and `ping`.

    `after`: the id of the last log line that the client has. `stream_after`: the `stream_id` of the last text.
    `allowed`: called every 30 seconds at most; when it returns False, the iteration ends. It also ends, after an
    `error` message, when the activity is deleted. `holder`: whose snapshots are read few at a time.

    Raises `ActivityNotFound` at once if there is none. Asks no permission itself. Use `contextlib.aclosing`, or close
    it, to stop listening.
    """
    follower = Follower(holder)
    try:
        await follower.follow_activity(agent_id, after, stream_after)
        async for message in _messages(follower, allowed):
            yield message
    finally:
        await follower.close()


async def follow_feed(audience: str, user: User, *, allowed: Allowed | None = None) -> AsyncIterator[Json]:
    """Yield the messages of the feed of `audience`, without end, with a snapshot of what `user` may see."""
    follower = Follower()
    try:
        await follower.follow_feed(audience, user)
        async for message in _messages(follower, allowed):
            yield message
    finally:
        await follower.close()


async def _messages(follower: Follower, allowed: Allowed | None) -> AsyncIterator[Json]:
    loop = asyncio.get_running_loop()
    asked = sent = loop.time()
    while True:
        now, check_at, ping_at = loop.time(), asked + ASK_AGAIN, sent + PING
        message = await follower.send_buffer.get(min(ping_at, check_at if check_at > now else ping_at) - now)
        now = loop.time()
        if allowed is not None and check_at <= now:
            asked = now
            if not await allowed():
                return
        if message is None:
            if now < ping_at:
                continue
            message = {"type": "ping"}
        sent = now
        yield message
        if message["type"] == "error":
            return


def _check_positions(after: int | None, stream_after: str | None) -> None:
    """Refuse what no store can read after: many followers share one reading, which it would break."""
    if after is not None and (isinstance(after, bool) or not isinstance(after, int) or not 0 <= after <= MAX_INT64):
        raise InvalidOption(f"after={after!r} is not the id of a log line; give a number from 0 to {MAX_INT64}.")
    if stream_after is not None and not is_stream_id(stream_after):
        raise InvalidOption(f"stream_after={stream_after!r} is not a `stream_id` of a message.")


def _read_visible(user: User) -> list[State]:
    return read_feed(get_policy().visible(user, Activity.objects.all()))
