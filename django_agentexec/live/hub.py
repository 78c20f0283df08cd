"""Hub of one event loop: receives change notices, reads the database, and distributes the changes to subscriptions.

A topic is read once, however many clients follow it. A lost notice (a layer may drop it, or be unavailable) is
compensated by a poll of the versions of all followed activities, every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakKeyDictionary

from ..concurrency.rules import Rules, read_pauses
from ..conf import conf
from ..logs import ThrottledLogger
from ..queues import get_queue
from ..threads import in_thread
from .call_feed import distribute_calls
from .channel_layer import ChangeNotice, ChannelLayerSubscriber, end_tasks, shared_layer
from .reading import ActivityState, read_feeds, read_states, read_versions
from .subscriptions import ActivitySubscription, FeedSubscription, Subscription
from .text_feed import distribute_text, finish_text

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

POLL_INTERVAL = 1.0  # seconds between two polls without notices from other processes
CHECK_INTERVAL = 3.0  # the same with a channel layer, which may lose a notice
WATCH_SECONDS = 15.0  # for which publishers consider a topic watched; renewed after half of that
# Seconds after which every publisher knows a new subscription. Changes up to then are read again at that time.
PUBLISHER_DELAY = 0.8
STREAM_INTERVAL = 0.05  # seconds between two reads of streamed text
MAX_TOPICS = 100  # of one read: each is a condition of its SQL
MAX_ITEMS = 500  # changes of one feed in one read

_lock = threading.Lock()
_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def current_hub() -> Hub:
    """Return the running event loop's hub."""
    loop = asyncio.get_running_loop()
    with _lock:
        if loop not in _hubs:
            _hubs[loop] = Hub()
        return _hubs[loop]


def notify_local_hubs(notice: ChangeNotice) -> None:
    """Pass a notice to the hubs of this process. Thread-safe."""
    with _lock:
        hubs = list(_hubs.items())
    for loop, hub in hubs:
        with suppress(RuntimeError):  # the loop was closed in the meantime
            loop.call_soon_threadsafe(hub.notify, notice)


def local_topics() -> frozenset[str]:
    """Return the topics that are followed in this process. Thread-safe."""
    with _lock:
        hubs = list(_hubs.values())
    return frozenset(topic for hub in hubs for topic in list(hub.topics))


class Hub:
    """The subscriptions of one event loop, and the tasks that update them. Runs while there are subscriptions."""

    def __init__(self) -> None:
        self.topics: dict[str, set[Subscription]] = {}
        self._changed: dict[str, None] = {}  # in order of arrival, so that a busy topic does not delay the others
        self._feed_changes: dict[str, dict[UUID, int]] = {}
        self._streamed: set[str] = set()
        self._calling: set[str] = set()
        self._has_changes = asyncio.Event()
        self._has_streamed = asyncio.Event()
        self._watched_at: dict[str, float] = {}
        self._layer: ChannelLayerSubscriber | None = None
        self._pauses: Rules | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Subscriptions

    async def subscribe(self, subscription: Subscription) -> None:
        """Receive the notices for `subscription` from now on; its snapshot must be read after this."""
        topic = subscription.topic
        is_first = topic not in self.topics
        subscription.on_drained = self.refresh
        self.topics.setdefault(topic, set()).add(subscription)
        if not self._tasks:
            self._start()
        if is_first and self._layer is not None:
            await self._layer.subscribe(topic)
        now = asyncio.get_running_loop().time()
        if self._watched_at.get(topic, -WATCH_SECONDS) + WATCH_SECONDS / 2 < now:
            self._watched_at[topic] = now
            await self._watch([topic])

    def activate(self, subscription: Subscription) -> None:
        """Read the changes since the snapshot: now, and again when all publishers know the subscription."""
        loop = asyncio.get_running_loop()
        self.refresh(subscription)
        loop.call_later(PUBLISHER_DELAY, self.refresh, subscription)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Remove `subscription`; the hub stops with the last of them."""
        subscriptions = self.topics.get(subscription.topic, set())
        subscriptions.discard(subscription)
        if not subscriptions and self.topics.pop(subscription.topic, None) is not None:
            self._watched_at.pop(subscription.topic, None)
            if self._layer is not None and self.topics:
                await self._layer.unsubscribe(subscription.topic)
        if not self.topics:
            await self._stop()

    # Pending reads

    def notify(self, notice: ChangeNotice) -> None:
        """Schedule a read of the changes: immediately, or at the end of the interval since the last read."""
        if notice.topic not in self.topics:
            return
        if notice.streamed:
            self._streamed.add(notice.topic)
            self._has_streamed.set()
        if notice.calls:
            self._calling.add(notice.topic)
        if not notice.changed:
            return
        self._changed[notice.topic] = None
        changes = self._feed_changes.setdefault(notice.topic, {})
        for agent_id, log_id in notice.changed.items():
            changes[agent_id] = max(log_id, changes.get(agent_id, 0))
        self._has_changes.set()

    def refresh(self, subscription: Subscription) -> None:
        """Schedule a read of everything that is new to `subscription`, without a notice."""
        if subscription not in self.topics.get(subscription.topic, ()):
            return
        if isinstance(subscription, FeedSubscription):
            subscription.is_behind = True
            early, subscription.early_changes = subscription.early_changes, {}
            self.notify(ChangeNotice(subscription.topic, early))
        else:
            self._streamed.add(subscription.topic)
            self._has_streamed.set()
            self._calling.add(subscription.topic)
        self._changed[subscription.topic] = None
        self._has_changes.set()

    # Tasks

    def _start(self) -> None:
        layer = shared_layer()
        self._layer = ChannelLayerSubscriber(layer, self.notify) if layer is not None else None
        loop = asyncio.get_running_loop()
        steps = (self._read_changes, self._read_streams, self._poll)
        self._tasks = [loop.create_task(self._repeat(step)) for step in steps]

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        layer, self._layer = self._layer, None
        await end_tasks(tasks)
        if layer is not None:
            await layer.close()

    async def _repeat(self, step: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001  # the database or queue is unavailable: retry until it is back
                throttled.warn("Could not update live subscribers; retrying.", error)
                await asyncio.sleep(POLL_INTERVAL)
                for subscription in self._subscriptions():
                    self.refresh(subscription)

    async def _read_changes(self) -> None:
        await self._has_changes.wait()
        self._has_changes.clear()
        topics = [topic for topic in self._changed if topic in self.topics][:MAX_TOPICS]
        self._changed = {topic: None for topic in self._changed if topic not in topics and topic in self.topics}
        batch = ReadBatch()
        for topic in topics:
            with_calls = topic in self._calling
            self._calling.discard(topic)
            batch.add(self.topics[topic], self._take_feed_changes(topic), with_calls=with_calls)
        states = await batch.read()
        for unfinished in await batch.distribute_calls():
            self._calling.add(unfinished.topic)
            self._changed[unfinished.topic] = None
        for unfinished in await batch.distribute(states):
            self._changed[unfinished.topic] = None
        self._retry_failed(batch)
        await compare_feeds(feed for feed in batch.feeds if feed.is_behind)
        # At most one read per interval, which also limits the number of messages of each client.
        await asyncio.sleep(conf.LIVE_INTERVAL)
        if self._changed:
            self._has_changes.set()

    def _retry_failed(self, batch: ReadBatch) -> None:
        """Schedule another read of the activities that could not be read, without delaying the others."""
        loop = asyncio.get_running_loop()
        for agent_id in batch.failed & batch.activities.keys():
            for each in batch.activities[agent_id]:
                loop.call_later(POLL_INTERVAL, self.refresh, each)

    def _take_feed_changes(self, topic: str) -> dict[UUID, int]:
        changes = self._feed_changes.pop(topic, {})
        rest = dict(list(changes.items())[MAX_ITEMS:])
        if rest:
            self._feed_changes[topic] = rest
            self._changed[topic] = None
        return {agent_id: log_id for agent_id, log_id in changes.items() if agent_id not in rest}

    async def _read_streams(self) -> None:
        await self._has_streamed.wait()
        self._has_streamed.clear()
        topics, self._streamed = self._streamed, set()
        unfinished, _ = await distribute_text(
            each for topic in topics for each in self.topics.get(topic, ()) if isinstance(each, ActivitySubscription)
        )
        await asyncio.sleep(STREAM_INTERVAL)
        if unfinished:
            self._streamed |= {each.topic for each in unfinished}
            self._has_streamed.set()

    async def _poll(self) -> None:
        layer = self._layer
        await asyncio.sleep(CHECK_INTERVAL if layer is not None and layer.is_complete else POLL_INTERVAL)
        if layer is not None:
            await layer.resubscribe()
        await self._watch(self._due_for_watch())
        topics = {each.agent_id: each.topic for each in self._subscriptions() if isinstance(each, ActivitySubscription)}
        versions = await in_thread(read_versions, topics)
        has_new_pauses = await self._has_new_pauses()
        for each in self._subscriptions():
            if (
                isinstance(each, FeedSubscription)
                or each.version is None
                or (each.is_queued and has_new_pauses)
                or versions.get(each.agent_id) != each.version[0]
            ):
                self.refresh(each)
            elif each.is_active:
                self._streamed.add(each.topic)
                self._has_streamed.set()

    async def _has_new_pauses(self) -> bool:
        """Return whether anything was paused or resumed since the last poll; a query if a queued activity is followed.

        Neither changes the rows of the activities that it holds or lets go.
        """
        if not any(isinstance(each, ActivitySubscription) and each.is_queued for each in self._subscriptions()):
            return False
        before, self._pauses = self._pauses, await in_thread(read_pauses)
        return self._pauses != before

    def _due_for_watch(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        due = [topic for topic in self.topics if self._watched_at.get(topic, -WATCH_SECONDS) + WATCH_SECONDS / 2 < now]
        self._watched_at.update(dict.fromkeys(due, now))
        return due

    async def _watch(self, topics: list[str]) -> None:
        """Register these topics as watched, for the publishers of all processes."""
        if not topics:
            return
        try:
            await in_thread(lambda: get_queue().live.watch(topics, WATCH_SECONDS))
        except Exception as error:  # noqa: BLE001  # any error of a queue; the hub polls meanwhile
            throttled.warn("Could not register the followed topics; the database is polled instead.", error)
            for topic in topics:
                self._watched_at.pop(topic, None)

    def _subscriptions(self) -> list[Subscription]:
        return [subscription for subscriptions in self.topics.values() for subscription in subscriptions]


@dataclass(slots=True)
class ReadBatch:
    """One read for many subscriptions: the activities and the changes of feeds, each with those that take part.

    They are fixed before the read starts, so that no subscriber misses a line. A subscription that becomes ready during
    the read has a snapshot of another moment; it takes part in the next read.
    """

    activities: dict[UUID, list[ActivitySubscription]] = field(default_factory=dict)
    feeds: dict[FeedSubscription, dict[UUID, int]] = field(default_factory=dict)
    failed: set[UUID] = field(default_factory=set)
    """Activities that could not be read."""
    calling: set[UUID] = field(default_factory=set)
    """Activities whose calls are to be read, too."""

    def add(
        self, subscriptions: Iterable[Subscription], changes: Mapping[UUID, int], *, with_calls: bool = False
    ) -> None:
        """Add the subscriptions of a topic that are ready and have room; `changes` are those of a feed."""
        for each in subscriptions:
            if isinstance(each, ActivitySubscription):
                if each.is_ready and each.has_room():
                    self.activities.setdefault(each.agent_id, []).append(each)
                    if with_calls:
                        self.calling.add(each.agent_id)
            elif each.is_ready:
                self.feeds.setdefault(each, {}).update(changes)
            else:
                each.early_changes.update(changes)

    async def read(self) -> dict[UUID, ActivityState]:
        """Return the states of all activities of this batch that can be read, with the lines that a client lacks."""
        positions = {agent_id: min(s.position for s in readers) for agent_id, readers in self.activities.items()}
        items = {agent_id: newest for changes in self.feeds.values() for agent_id, newest in changes.items()}
        if not positions and not items:
            return {}
        undecided = {agent_id for agent_id, readers in self.activities.items() if any(s.knows_pending for s in readers)}
        states, self.failed = await in_thread(read_states, positions, items, undecided)
        return states

    async def distribute_calls(self) -> set[ActivitySubscription]:
        """Read and offer the calls; return the subscriptions with more to read.

        Called after `read`, so that a client has all calls before the final status.
        """
        readers = {agent_id: self.activities[agent_id] for agent_id in self.calling - self.failed}
        return await distribute_calls(readers) if readers else set()

    async def distribute(self, states: Mapping[UUID, ActivityState]) -> set[ActivitySubscription]:
        """Offer the states to the subscriptions; return the subscriptions that have more to read immediately."""
        shown = {agent_id: state.as_of_last_line() for agent_id, state in states.items()}
        finished = [
            each
            for agent_id, subscriptions in self.activities.items()
            if agent_id in shown and not shown[agent_id].is_active
            for each in subscriptions
            if each.is_active
        ]
        # The rest of the text comes before a final status, which waits for it.
        unfinished = await finish_text(finished) if finished else set()
        for agent_id, subscriptions in self.activities.items():
            for each in subscriptions:
                if agent_id in self.failed or each in unfinished:
                    continue
                if agent_id not in shown:
                    each.end_deleted()
                    continue
                each.accept(shown[agent_id])
                if shown[agent_id].has_more:
                    unfinished.add(each)
        for feed, changes in self.feeds.items():
            for agent_id in changes.keys() & states.keys():
                feed.accept(states[agent_id])
        return unfinished


async def compare_feeds(subscriptions: Iterable[FeedSubscription]) -> None:
    """Compare the states that these clients know with the current feeds, and send the differences."""
    readers = [each for each in subscriptions if each.is_ready and each.has_room()]
    if not readers:
        return
    for each in readers:
        each.is_behind = False
    for each, states in await in_thread(read_feeds, readers):
        for state in states:
            each.accept(state)
