"""Brings changes to the followers of one event loop: hears hints, reads the database, hands out what is new.

However many clients follow the same thing, it is read once. A hint that never came (a layer may drop, or be
away) is made up for by a look at the versions of all that is followed, every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from uuid import UUID
from weakref import WeakKeyDictionary

from ..conf import conf
from ..queues import get_queue
from ..throttled_logging import ThrottledLogger
from . import fanout
from .channel_layer import ChannelLayerSubscriber, shared_layer
from .reading import read_versions
from .subscriptions import ActivitySubscription, FeedSubscription, Subscription
from .threads import end_tasks, in_thread
from .topics import ChangeNotice

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

POLL = 1.0  # seconds between two looks where nothing tells of changes in other processes
CHECK = 3.0  # the same where a channel layer does, and may lose a hint
WATCH = 15.0  # seconds that publishers believe that somebody watches, unless told again
# Seconds after which every publisher knows of a new follower. What changed meanwhile is looked up then.
SETTLED = 0.8
STREAM_INTERVAL = 0.05  # seconds between two readings of streamed text

_lock = threading.Lock()
_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def current_hub() -> Hub:
    """Return the running event loop's hub."""
    loop = asyncio.get_running_loop()
    with _lock:
        if loop not in _hubs:
            _hubs[loop] = Hub()
        return _hubs[loop]


def tell_this_process(hint: ChangeNotice) -> None:
    """Hand a hint to the followers in this process; callable in any thread."""
    with _lock:
        hubs = list(_hubs.items())
    for loop, hub in hubs:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(hub.hear, hint)


def topics_of_this_process() -> frozenset[str]:
    """Return what is followed in this process; callable in any thread."""
    with _lock:
        hubs = list(_hubs.values())
    return frozenset(topic for hub in hubs for topic in list(hub.topics))


class Hub:
    """Runs while somebody follows."""

    def __init__(self) -> None:
        self.topics: dict[str, set[Subscription]] = {}
        self._changed: dict[str, None] = {}  # in order, so that no topic waits behind others that change all the time
        self._feed_changes: dict[str, dict[UUID, int]] = {}
        self._streamed: set[str] = set()
        self._wanted = asyncio.Event()
        self._stream_wanted = asyncio.Event()
        self._watched_at: dict[str, float] = {}
        self._link: ChannelLayerSubscriber | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Who follows what

    async def join(self, subscription: Subscription) -> None:
        """Bring changes to `subscription` from now on; read its snapshot after this."""
        topic = subscription.topic
        is_first = topic not in self.topics
        subscription.on_room = self.look_at
        self.topics.setdefault(topic, set()).add(subscription)
        if not self._tasks:
            self._start()
        if is_first and self._link is not None:
            await self._link.join(topic)
        now = asyncio.get_running_loop().time()
        if self._watched_at.get(topic, -WATCH) + WATCH / 2 < now:
            self._watched_at[topic] = now
            await self._watch([topic])

    def started(self, subscription: Subscription) -> None:
        """Look once more at what changed while the snapshot was being read, and until publishers know of it."""
        loop = asyncio.get_running_loop()
        self.look_at(subscription)
        loop.call_later(SETTLED, self.look_at, subscription)

    async def leave(self, subscription: Subscription) -> None:
        """Bring nothing more to `subscription`; the last one to leave stops the hub."""
        followers = self.topics.get(subscription.topic, set())
        followers.discard(subscription)
        if not followers and self.topics.pop(subscription.topic, None) is not None:
            self._watched_at.pop(subscription.topic, None)
            if self._link is not None and self.topics:
                await self._link.leave(subscription.topic)
        if not self.topics:
            await self._stop()

    # What is to be read

    def hear(self, hint: ChangeNotice) -> None:
        """Note that something changed; it is read at once, or when the interval since the last reading is over."""
        if hint.topic not in self.topics:
            return
        if hint.streamed:
            self._streamed.add(hint.topic)
            self._stream_wanted.set()
        if not hint.changed:
            return
        self._changed[hint.topic] = None
        changes = self._feed_changes.setdefault(hint.topic, {})
        for agent_id, log_id in hint.changed.items():
            changes[agent_id] = max(log_id, changes.get(agent_id, 0))
        self._wanted.set()

    def look_at(self, subscription: Subscription) -> None:
        """Read what is new to `subscription`, whether anything is known to have changed or not."""
        if subscription not in self.topics.get(subscription.topic, ()):
            return
        if isinstance(subscription, FeedSubscription):
            subscription.is_behind = True
            missed, subscription.missed = subscription.missed, {}
            self.hear(ChangeNotice(subscription.topic, missed))
        else:
            self._streamed.add(subscription.topic)
            self._stream_wanted.set()
        self._changed[subscription.topic] = None
        self._wanted.set()

    # The tasks

    def _start(self) -> None:
        layer = shared_layer()
        self._link = ChannelLayerSubscriber(layer, self.hear) if layer is not None else None
        loop = asyncio.get_running_loop()
        duties = (self._read_changes, self._read_streams, self._look_after_all)
        self._tasks = [loop.create_task(self._repeat(duty)) for duty in duties]

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        link, self._link = self._link, None
        await end_tasks(tasks)
        if link is not None:
            await link.close()

    async def _repeat(self, duty: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            try:
                await duty()
            except Exception as error:  # noqa: BLE001  # database or queue are away: the followers wait for them
                throttled.warn("Live followers cannot be told of changes at present.", error)
                await asyncio.sleep(POLL)
                for subscription in self._all():
                    self.look_at(subscription)

    async def _read_changes(self) -> None:
        await self._wanted.wait()
        self._wanted.clear()
        topics = [topic for topic in self._changed if topic in self.topics][: fanout.MAX_TOPICS]
        self._changed = {topic: None for topic in self._changed if topic not in topics and topic in self.topics}
        round_ = fanout.ReadBatch()
        for topic in topics:
            round_.add(self.topics[topic], self._take_feed_changes(topic))
        states = await round_.read()
        for unfinished in await round_.hand_out(states):
            self._changed[unfinished.topic] = None
        self._read_again_later(round_)
        await fanout.look_at_feeds(feed for feed in round_.feeds if feed.is_behind)
        # What goes on changing is read once per interval; only then the client's messages are bounded, too.
        await asyncio.sleep(conf.LIVE_INTERVAL)
        if self._changed:
            self._wanted.set()

    def _read_again_later(self, round_: fanout.ReadBatch) -> None:
        """Try once more what could not be read, without delaying what can."""
        loop = asyncio.get_running_loop()
        for agent_id in round_.unread & round_.activities.keys():
            for each in round_.activities[agent_id]:
                loop.call_later(POLL, self.look_at, each)

    def _take_feed_changes(self, topic: str) -> dict[UUID, int]:
        changes = self._feed_changes.pop(topic, {})
        rest = dict(list(changes.items())[fanout.MAX_ITEMS :])
        if rest:
            self._feed_changes[topic] = rest
            self._changed[topic] = None
        return {agent_id: log_id for agent_id, log_id in changes.items() if agent_id not in rest}

    async def _read_streams(self) -> None:
        await self._stream_wanted.wait()
        self._stream_wanted.clear()
        topics, self._streamed = self._streamed, set()
        unfinished, _ = await fanout.hand_out_text(
            each for topic in topics for each in self.topics.get(topic, ()) if isinstance(each, ActivitySubscription)
        )
        await asyncio.sleep(STREAM_INTERVAL)
        if unfinished:
            self._streamed |= {each.topic for each in unfinished}
            self._stream_wanted.set()

    async def _look_after_all(self) -> None:
        link = self._link
        await asyncio.sleep(CHECK if link is not None and link.is_up else POLL)
        if link is not None:
            await link.rejoin()
        await self._watch(self._due_for_watch())
        followed = {each.agent_id: each.topic for each in self._all() if isinstance(each, ActivitySubscription)}
        versions = await in_thread(read_versions, followed)
        for each in self._all():
            if isinstance(each, FeedSubscription) or versions.get(each.agent_id) != each.seen:
                self.look_at(each)
            elif each.is_active:
                self._streamed.add(each.topic)
                self._stream_wanted.set()

    def _due_for_watch(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        due = [topic for topic in self.topics if self._watched_at.get(topic, -WATCH) + WATCH / 2 < now]
        self._watched_at.update(dict.fromkeys(due, now))
        return due

    async def _watch(self, topics: list[str]) -> None:
        """Let publishers know that these are followed."""
        if not topics:
            return
        try:
            await in_thread(lambda: get_queue().live.watch(topics, WATCH))
        except Exception as error:  # noqa: BLE001  # whatever a queue raises: its followers poll meanwhile
            throttled.warn("Publishers cannot be told what is followed.", error)
            for topic in topics:
                self._watched_at.pop(topic, None)

    def _all(self) -> list[Subscription]:
        return [subscription for followers in self.topics.values() for subscription in followers]
