"""One database read for many subscribers, and the distribution of its results.

The participants of a read are fixed before it starts, so that no subscriber misses a line. A subscription that becomes
ready during a read has a snapshot of another moment; it takes part in the next read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID

from ..logs import ThrottledLogger
from ..models import Activity, ActivityQuerySet
from ..policy import get_policy
from ..queues import Chunk, get_queue
from .reading import ActivityState, last_log_ids, read_calls, read_changes, read_feed, read_isolated, read_stored_texts
from .subscriptions import ActivitySubscription, FeedSubscription, Subscription, stream_key
from .threads import in_thread

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

MAX_TOPICS = 100  # of one read: each is a condition of its SQL
MAX_ITEMS = 500  # changes of one feed in one read
MAX_CHUNKS = 500  # pieces of text of one activity in one read


@dataclass(slots=True)
class ReadBatch:
    """The activities and feed changes of one read, each with the subscriptions that take part."""

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
        wanted: dict[UUID, tuple[int | None, int | None]] = {}
        for changes in self.feeds.values():
            wanted.update((agent_id, (None, newest)) for agent_id, newest in changes.items())
        for agent_id, subscriptions in self.activities.items():
            wanted[agent_id] = min(s.position for s in subscriptions), wanted.get(agent_id, (None, None))[1]
        if not wanted:
            return {}
        undecided = {
            agent_id
            for agent_id, subscriptions in self.activities.items()
            if any(s.knows_pending for s in subscriptions)
        }
        read = partial(_read_changes, undecided=undecided)
        found, self.failed = await in_thread(read_isolated, read, wanted)
        return {agent_id: state for states in found for agent_id, state in states.items()}

    async def read_calls(self) -> set[ActivitySubscription]:
        """Read the calls that have started or ended, and offer them; return the subscriptions with more to read.

        Called after `read`, so that a client has all calls before the final status.
        """
        since: dict[UUID, datetime] = {}
        for agent_id in self.calling - self.failed:
            positions = [each.calls.since for each in self.activities.get(agent_id, ())]
            if known := [position for position in positions if position is not None]:
                since[agent_id] = min(known)
        if not since:
            return set()
        found, has_more = await in_thread(read_calls, since)
        readers = {agent_id: self.activities[agent_id] for agent_id in since}
        for agent_id, subscriptions in readers.items():
            for each in subscriptions:
                each.accept_calls(found.get(agent_id, ()))
        return {each for subscriptions in readers.values() for each in subscriptions} if has_more else set()

    async def distribute(self, states: Mapping[UUID, ActivityState]) -> set[ActivitySubscription]:
        """Offer the states to the subscriptions; return the subscriptions that have more to read immediately."""
        shown = {agent_id: state.as_of_last_line() for agent_id, state in states.items()}
        unfinished = await self._finish_text(shown)
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

    async def _finish_text(self, states: Mapping[UUID, ActivityState]) -> set[ActivitySubscription]:
        """Distribute the text of activities that have just finished, before their final status.

        Return the subscriptions with more text: their final status has to wait.
        """
        finished = [
            each
            for agent_id, subscriptions in self.activities.items()
            if agent_id in states and not states[agent_id].is_active
            for each in subscriptions
            if each.is_active
        ]
        return await finish_text(finished) if finished else set()


async def finish_text(finished: Sequence[ActivitySubscription]) -> set[ActivitySubscription]:
    """Distribute the rest of the text, and the stored text after a gap. Return the subscriptions with more text."""
    unfinished, failed = await distribute_text(finished)
    for each in failed:  # the final status must not depend on the store of the text
        each.text.add_gap(None)
    remaining = {each for each in finished if each in unfinished or not each.has_room()}
    with_gap = [each for each in finished if each.text.has_gap and each not in remaining]
    if with_gap:
        stored = await in_thread(read_stored_texts, {each.agent_id for each in with_gap})
        for each in with_gap:
            if each.agent_id in stored:
                each.text.replace(stored[each.agent_id])
            each.send_text()
    return remaining


def _read_changes(
    wanted: Mapping[UUID, tuple[int | None, int | None]], undecided: Set[UUID]
) -> dict[UUID, ActivityState]:
    positions = {agent_id: position for agent_id, (position, _) in wanted.items() if position is not None}
    items = {agent_id: newest for agent_id, (_, newest) in wanted.items() if newest is not None}
    return read_changes(positions, items, undecided & positions.keys())


async def distribute_text(
    subscriptions: Iterable[ActivitySubscription],
) -> tuple[set[ActivitySubscription], set[ActivitySubscription]]:
    """Read the streamed text that these subscriptions lack, and offer it to them.

    Return the subscriptions with more text, and those whose text cannot be read at present: the next poll of the hub
    reads it again.
    """
    ready = [each for each in subscriptions if each.is_ready and each.has_room()]
    failed = await _resume([each for each in ready if each.text.must_resume])
    readers: dict[UUID, list[ActivitySubscription]] = {}
    for each in ready:
        if each not in failed:
            readers.setdefault(each.agent_id, []).append(each)
    if not readers:
        return set(), failed
    after = {agent_id: min((s.text.position for s in group), key=stream_key) for agent_id, group in readers.items()}
    found: dict[UUID, list[Chunk]] = {}
    results, failed_ids = await in_thread(read_isolated, _read_text, after)
    failed.update(each for agent_id in failed_ids for each in readers[agent_id])
    for chunk in (chunk for chunks in results for chunk in chunks):
        found.setdefault(chunk.agent_id, []).append(chunk)
    unfinished: set[ActivitySubscription] = set()
    for agent_id, chunks in found.items():
        for each in readers[agent_id]:
            if not each.accept_text(chunks) or len(chunks) == MAX_CHUNKS:
                unfinished.add(each)
    return unfinished, failed


async def _resume(subscriptions: Sequence[ActivitySubscription]) -> set[ActivitySubscription]:
    """Read the last piece that each client has received, and resume after it. Return the failed subscriptions."""
    failed: set[ActivitySubscription] = set()
    by_position: dict[str, list[ActivitySubscription]] = {}
    for each in subscriptions:
        by_position.setdefault(each.text.position, []).append(each)
    for position, group in by_position.items():
        positions = {each.agent_id: position for each in group}
        results, failed_ids = await in_thread(read_isolated, get_queue().live.at, positions)
        found = {agent_id: chunk for chunks in results for agent_id, chunk in chunks.items()}
        failed.update(each for each in group if each.agent_id in failed_ids)
        for each in group:
            if each.text.must_resume and each not in failed:  # else a concurrent read has resumed it
                each.text.resume(found.get(each.agent_id))
                each.send_text()
    return failed


def _read_text(after: Mapping[UUID, str]) -> list[Chunk]:
    return get_queue().live.read(after, MAX_CHUNKS)


async def compare_feeds(subscriptions: Iterable[FeedSubscription]) -> None:
    """Compare the states that these clients know with the current feeds, and send the differences."""
    readers = [each for each in subscriptions if each.is_ready and each.has_room()]
    if not readers:
        return
    for each in readers:
        each.is_behind = False
    for each, states in await in_thread(_read_feeds, readers):
        for state in states:
            each.accept(state)


def _read_feeds(subscriptions: list[FeedSubscription]) -> list[tuple[FeedSubscription, list[ActivityState]]]:
    """Read each feed once for all users with the same view (the same SQL); leave out the feeds that fail."""
    by_view: dict[str, list[FeedSubscription]] = {}
    views: dict[str, ActivityQuerySet] = {}
    policy = get_policy()
    for each in subscriptions:
        try:
            visible = policy.visible(each.user, Activity.objects.all())
            view = "" if visible.query.is_empty() else repr(visible.query.sql_with_params())
        except Exception as error:  # noqa: BLE001  # any error of a project's policy for this user
            throttled.warn("Could not read the feed of one user; the others are updated.", error)
            continue
        by_view.setdefault(view, []).append(each)
        views[view] = visible
    found, _ = read_isolated(lambda wanted: _read_views(views, wanted), by_view)
    return [pair for pairs in found for pair in pairs]


def _read_views(
    views: Mapping[str, ActivityQuerySet], by_view: Mapping[str, list[FeedSubscription]]
) -> list[tuple[FeedSubscription, list[ActivityState]]]:
    found: list[tuple[FeedSubscription, list[ActivityState]]] = []
    for view, group in by_view.items():
        states = read_feed(views[view], {agent_id for each in group for agent_id in each.active})
        changed = [state for state in states if not all(each.has_seen(state) for each in group)]
        newest = last_log_ids([UUID(state.item["agent_id"]) for state in changed]) if changed else {}
        for state in changed:
            state.last_log_id = newest.get(UUID(state.item["agent_id"]), 0)
        found += [(each, changed) for each in group]
    return found
