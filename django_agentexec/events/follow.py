"""Following activities and feeds: a snapshot, then everything that changes, without gap and without duplicate.

`follow_activity` and `follow_feed` serve one client with one thing (server-sent events, tests);
a websocket follows many things through one `Follower`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

from ..models import Activity
from ..policy import get_policy
from .hub import current_hub
from .mailbox import Mailbox
from .reading import Json, State, read_activity, read_feed
from .subscriptions import ActivitySubscription, FeedSubscription, Subscription
from .threads import in_thread

if TYPE_CHECKING:
    from ..policy import User

PING = 20.0  # seconds without a message after which one says that the line is alive
ASK_AGAIN = 30.0  # seconds after which a follower's permission is asked again

Allowed = Callable[[], Awaitable[bool]]


class Follower:
    """All that one client follows, and the messages for it, each as in docs/live.md but without `seq`.

    Belongs to one event loop. Whoever makes one must `close` it. It asks no permission: the caller does.
    """

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self._hub = current_hub()
        self._activities: dict[UUID, ActivitySubscription] = {}
        self._feed: FeedSubscription | None = None

    @property
    def activities(self) -> list[UUID]:
        """The activities that are followed singly."""
        return list(self._activities)

    async def follow_activity(self, agent_id: UUID, after: int | None = None, stream_after: str | None = None) -> None:
        """Follow an activity, its log from the line after `after` on and its text after that position.

        Raises `ActivityNotFound`. One that is followed already is followed anew.
        """
        await self.unfollow(agent_id)
        subscription = ActivitySubscription(self.mailbox, agent_id, stream_after)
        self._activities[agent_id] = subscription
        try:
            await self._hub.join(subscription)
            detail, state = await in_thread(read_activity, agent_id, after)
        except BaseException:
            await self.unfollow(agent_id)
            raise
        message: Json = {"type": "snapshot", "activity": detail, "last_log_id": state.last_log_id}
        self.mailbox.put({**message, "has_more": True} if state.has_more else message)
        subscription.start(state)
        self._hub.started(subscription)

    async def follow_feed(self, audience: str, user: User) -> None:
        """Follow the feed of `audience`, and see in its snapshot what `user` may see."""
        await self.unfollow_feed()
        self._feed = subscription = FeedSubscription(self.mailbox, audience, user)
        await self._hub.join(subscription)
        states = await in_thread(_read_visible, user)
        self.mailbox.put({"type": "snapshot", "activities": [state.item for state in states]})
        subscription.start(states)
        self._hub.started(subscription)

    def renew(self, user: User) -> None:
        """Go on as `user`, as just read from the database: what they may see may have changed."""
        if self._feed is not None:
            self._feed.user = user

    async def unfollow(self, agent_id: UUID) -> bool:
        """Follow this activity no more; return whether it was followed."""
        subscription = self._activities.pop(agent_id, None)
        return await self._leave(subscription)

    async def unfollow_feed(self) -> None:
        """Follow no feed any more."""
        subscription, self._feed = self._feed, None
        await self._leave(subscription)

    async def next(self) -> Json:
        """Return the next message; a ping if there is none for 20 seconds."""
        return await self.mailbox.get(PING) or {"type": "ping"}

    async def close(self) -> None:
        """Follow nothing any more."""
        await self.unfollow_feed()
        for agent_id in self.activities:
            await self.unfollow(agent_id)

    async def _leave(self, subscription: Subscription | None) -> bool:
        if subscription is None:
            return False
        self.mailbox.forget(subscription)
        await self._hub.leave(subscription)
        return True


async def follow_activity(
    agent_id: UUID, *, after: int | None = None, stream_after: str | None = None, allowed: Allowed | None = None
) -> AsyncIterator[Json]:
    """Yield the messages of one activity, without end: `snapshot`, then `activity`, `delta`, `gap`, `text`,
    `retract` and `ping`.

    `after`: the id of the last log line that the client has. `stream_after`: the `stream_id` of the last text.
    `allowed`: asked every 30 seconds; when it says no, the iteration ends. It also ends, after an `error` message,
    when the activity is deleted. Raises `ActivityNotFound` at once if there is none. Asks no permission
    itself. Use `contextlib.aclosing`, or close it, to stop listening.
    """
    follower = Follower()
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
    asked = loop.time()
    while True:
        message = await follower.next()
        if allowed is not None and asked + ASK_AGAIN <= loop.time():
            asked = loop.time()
            if not await allowed():
                return
        yield message
        if message["type"] == "error":
            return


def _read_visible(user: User) -> list[State]:
    return read_feed(get_policy().visible(user, Activity.objects.all()))
