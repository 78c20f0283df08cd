"""Subscribers of activities and feeds: a snapshot, then all changes, without gaps or duplicates.

`follow_activity` and `follow_feed` serve one client with one subscription (server-sent events, tests); a websocket has
several subscriptions through one `Follower`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from typing import TYPE_CHECKING
from uuid import UUID

from ..exceptions import InvalidOption
from ..models import Activity
from ..parsing import MAX_INT64
from ..policy import get_policy
from ..queues.live import is_stream_id
from ..threads import in_thread
from . import messages
from .connections import read_turn
from .hub import current_hub
from .messages import Message
from .reading import ActivityState, read_activity, read_feed
from .subscriptions import PING_INTERVAL, ActivitySubscription, FeedSubscription, SendBuffer, Subscription

if TYPE_CHECKING:
    from ..policy import User

RECHECK_INTERVAL = 25.0  # seconds between two permission checks; with the check itself, at most 30

Allowed = Callable[[], Awaitable[bool]]


class Follower:
    """The subscriptions of one client, and the messages for it, as in docs/live.md but without `seq`.

    A follower belongs to one event loop and must be closed with `close`. It checks no permission: its caller does. The
    number of concurrent snapshot reads of one `holder` (a user) is limited, so that they do not delay those of others.
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
        """Follow an activity: its log after the line `after`, and its text after the position `stream_after`.

        An activity that is followed already starts again at these positions. Raises `ActivityNotFound`, and
        `InvalidOption` for an impossible position.
        """
        _check_positions(after, stream_after)
        await self.unfollow(agent_id)
        subscription = ActivitySubscription(self.send_buffer, agent_id, stream_after)
        self._activities[agent_id] = subscription
        try:
            await self._hub.subscribe(subscription)
            async with read_turn(self._holder):
                detail, state = await in_thread(read_activity, agent_id, after)
        except BaseException:
            await self.unfollow(agent_id)
            raise
        self.send_buffer.put(messages.activity_snapshot(detail, state.last_log_id, has_more=state.has_more))
        subscription.start(state)
        self._hub.activate(subscription)

    async def follow_feed(self, audience: str, user: User) -> None:
        """Follow the feed of `audience`; its snapshot has the activities that are visible to `user`."""
        await self.unfollow_feed()
        self._feed = subscription = FeedSubscription(self.send_buffer, audience, user, self._activities.__contains__)
        await self._hub.subscribe(subscription)
        async with read_turn(self._holder):
            states = await in_thread(_read_visible, user)
        self.send_buffer.put(messages.feed_snapshot([state.item for state in states]))
        subscription.start(states)
        self._hub.activate(subscription)

    def update_user(self, user: User) -> None:
        """Read the feed for the reloaded `user` from now on: their permissions may have changed."""
        if self._feed is not None:
            self._feed.user = user

    async def unfollow(self, agent_id: UUID) -> bool:
        """Stop following this activity; return whether it was followed."""
        subscription = self._activities.pop(agent_id, None)
        if subscription is not None and self._feed is not None:
            self._feed.invalidate(agent_id)
            self._hub.refresh(self._feed)
        return await self._unsubscribe(subscription)

    async def unfollow_feed(self) -> None:
        """Stop following the feed."""
        subscription, self._feed = self._feed, None
        await self._unsubscribe(subscription)

    async def next(self) -> Message:
        """Return the next message; a ping if there is none for 20 seconds."""
        return await self.send_buffer.next()

    async def close(self) -> None:
        """Stop following everything."""
        await self.unfollow_feed()
        for agent_id in self.activities:
            await self.unfollow(agent_id)

    async def _unsubscribe(self, subscription: Subscription | None) -> bool:
        if subscription is None:
            return False
        self.send_buffer.discard(subscription)
        await self._hub.unsubscribe(subscription)
        return True


async def follow_activity(
    agent_id: UUID,
    *,
    after: int | None = None,
    stream_after: str | None = None,
    allowed: Allowed | None = None,
    holder: Hashable = None,
) -> AsyncGenerator[Message, None]:
    """Yield the messages of one activity until it has ended: `snapshot`, then `activity`, `delta`, `gap`, `text`,
    `retract`, `rewind` and `ping`.

    The last message has the final status, and all text and log lines come before it or with it. For an activity that
    has ended before, this is the snapshot. A retry later on needs another call.

    `after`: the id of the last log line that the client has. `stream_after`: the `stream_id` of the last text.
    `allowed`: called at least every 30 seconds; the iteration ends when it returns False. The iteration also ends, with
    an `error` message, when the activity is deleted. `holder`: the user whose concurrent snapshot reads are limited.

    Raises `ActivityNotFound` before the first message. Checks no permission itself. Use `contextlib.aclosing`, or close
    the generator, to unsubscribe.
    """
    follower = Follower(holder)
    try:
        await follower.follow_activity(agent_id, after, stream_after)
        async for message in _messages(follower, allowed):
            yield message
            if messages.is_final(message):
                return
    finally:
        await follower.close()


async def follow_feed(audience: str, user: User, *, allowed: Allowed | None = None) -> AsyncGenerator[Message, None]:
    """Yield the messages of the feed of `audience`, without end; the snapshot has what is visible to `user`."""
    follower = Follower()
    try:
        await follower.follow_feed(audience, user)
        async for message in _messages(follower, allowed):
            yield message
    finally:
        await follower.close()


async def _messages(follower: Follower, allowed: Allowed | None) -> AsyncGenerator[Message, None]:
    loop = asyncio.get_running_loop()
    checked_at = sent_at = loop.time()
    while True:
        now, check_at, ping_at = loop.time(), checked_at + RECHECK_INTERVAL, sent_at + PING_INTERVAL
        # A check may be overdue because the caller was busy with the last message.
        wait_until = ping_at if allowed is None else min(ping_at, check_at)
        message = await follower.send_buffer.get(max(0.0, wait_until - now))
        now = loop.time()
        if allowed is not None and check_at <= now:
            checked_at = now
            if not await allowed():
                return
        if message is None:
            if now < ping_at:
                continue
            message = messages.ping()
        sent_at = now
        yield message
        if message["type"] == "error":
            return


def _check_positions(after: int | None, stream_after: str | None) -> None:
    """Reject positions that no store can read after: they would break the read that many subscribers share."""
    if after is not None and (isinstance(after, bool) or not isinstance(after, int) or not 0 <= after <= MAX_INT64):
        raise InvalidOption(f"after={after!r} is not the id of a log line; pass a number from 0 to {MAX_INT64}.")
    if stream_after is not None and not is_stream_id(stream_after):
        raise InvalidOption(f"stream_after={stream_after!r} is not a `stream_id` of a message.")


def _read_visible(user: User) -> list[ActivityState]:
    return read_feed(get_policy().visible(user, Activity.objects.all()))
