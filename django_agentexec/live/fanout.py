"""One reading of the database for many followers: who takes part is settled before, so that nobody misses a line.

A subscription that becomes ready while the reading goes on has a snapshot of another moment; it takes part
in the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ..models import Activity, ActivityQuerySet
from ..policy import get_policy
from ..queues import Chunk, get_queue
from ..throttled_logging import ThrottledLogger
from .isolation import read_isolated
from .reading import State, last_log_ids, read_changes, read_feed, read_stored_texts
from .subscriptions import ActivitySubscription, FeedSubscription, Subscription
from .text import stream_key
from .threads import in_thread

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

MAX_TOPICS = 100  # of one reading: each is a condition of its SQL
MAX_ITEMS = 500  # changes of one feed in one reading
MAX_CHUNKS = 500  # pieces of text of one activity in one reading


@dataclass(slots=True)
class ReadBatch:
    """Activities with those who follow them, and what changed on feeds."""

    activities: dict[UUID, list[ActivitySubscription]] = field(default_factory=dict)
    feeds: dict[FeedSubscription, dict[UUID, int]] = field(default_factory=dict)

    def add(self, subscriptions: Iterable[Subscription], changes: Mapping[UUID, int]) -> None:
        """Let those of a topic's `subscriptions` take part that can."""
        for each in subscriptions:
            if isinstance(each, ActivitySubscription):
                if each.is_ready and each.has_room():
                    self.activities.setdefault(each.agent_id, []).append(each)
            elif each.is_ready:
                self.feeds.setdefault(each, {}).update(changes)
            else:
                each.missed.update(changes)

    unread: set[UUID] = field(default_factory=set)
    """Activities that could not be read; their followers know nothing new of them."""

    async def read(self) -> dict[UUID, State]:
        """Return the state of all that takes part and can be read, with the lines that anybody lacks."""
        wanted: dict[UUID, tuple[int | None, int | None]] = {}
        for changes in self.feeds.values():
            wanted.update((agent_id, (None, newest)) for agent_id, newest in changes.items())
        for agent_id, taking in self.activities.items():
            wanted[agent_id] = min(s.position for s in taking), wanted.get(agent_id, (None, None))[1]
        if not wanted:
            return {}
        found, self.unread = await in_thread(read_isolated, _read_changes, wanted)
        return {agent_id: state for states in found for agent_id, state in states.items()}

    async def hand_out(self, states: Mapping[UUID, State]) -> set[ActivitySubscription]:
        """Offer what was read; return those for whom there is more to read at once."""
        unfinished = await self._finish_text(states)
        for agent_id, taking in self.activities.items():
            for each in taking:
                if agent_id in self.unread or each in unfinished:
                    continue
                if agent_id not in states:
                    each.vanish()
                    continue
                each.accept(states[agent_id])
                if states[agent_id].has_more:
                    unfinished.add(each)
        for feed, changes in self.feeds.items():
            for agent_id in changes.keys() & states.keys():
                feed.accept(states[agent_id])
        return unfinished

    async def _finish_text(self, states: Mapping[UUID, State]) -> set[ActivitySubscription]:
        """Hand out the text of what has just ended, so that no follower leaves before having read it.

        Return those for whom there is more of it: their end has to wait.
        """
        ended = [
            each
            for agent_id, taking in self.activities.items()
            if agent_id in states and not states[agent_id].is_active
            for each in taking
            if each.is_active
        ]
        return await finish_text(ended) if ended else set()


async def finish_text(ended: Sequence[ActivitySubscription]) -> set[ActivitySubscription]:
    """Hand out the rest of the text; to those with a gap the stored one. Return those for whom there is more."""
    unfinished, unread = await hand_out_text(ended)
    for each in unread:  # the end of an activity must not depend on the store of its text
        each.text.miss(None)
    left = {each for each in ended if each in unfinished or not each.has_room()}
    lacking = [each for each in ended if each.text.has_gap and each not in left]
    if lacking:
        stored = await in_thread(read_stored_texts, {each.agent_id for each in lacking})
        for each in lacking:
            if each.agent_id in stored:
                each.text.replace(stored[each.agent_id])
            each.announce_text()
    return left


def _read_changes(wanted: Mapping[UUID, tuple[int | None, int | None]]) -> dict[UUID, State]:
    positions = {agent_id: position for agent_id, (position, _) in wanted.items() if position is not None}
    items = {agent_id: newest for agent_id, (_, newest) in wanted.items() if newest is not None}
    return read_changes(positions, items)


async def hand_out_text(
    subscriptions: Iterable[ActivitySubscription],
) -> tuple[set[ActivitySubscription], set[ActivitySubscription]]:
    """Read what these lack of streamed text, and hand it out.

    Return those for whom there is more, and those whose text cannot be read at present: it is read again at the next
    look at what is followed.
    """
    ready = [each for each in subscriptions if each.is_ready and each.has_room()]
    unread = await _resume([each for each in ready if each.text.must_resume])
    taking: dict[UUID, list[ActivitySubscription]] = {}
    for each in ready:
        if each not in unread:
            taking.setdefault(each.agent_id, []).append(each)
    if not taking:
        return set(), unread
    after = {agent_id: min((s.text.position for s in them), key=stream_key) for agent_id, them in taking.items()}
    found: dict[UUID, list[Chunk]] = {}
    read, failed = await in_thread(read_isolated, _read_text, after)
    unread.update(each for agent_id in failed for each in taking[agent_id])
    for chunk in (chunk for chunks in read for chunk in chunks):
        found.setdefault(chunk.agent_id, []).append(chunk)
    unfinished: set[ActivitySubscription] = set()
    for agent_id, chunks in found.items():
        for each in taking[agent_id]:
            if not each.accept_text(chunks) or len(chunks) == MAX_CHUNKS:
                unfinished.add(each)
    return unfinished, unread


async def _resume(subscriptions: Sequence[ActivitySubscription]) -> set[ActivitySubscription]:
    """Find out what these clients have, by the last piece that they got; return those of whom it cannot be read."""
    unread: set[ActivitySubscription] = set()
    by_position: dict[str, list[ActivitySubscription]] = {}
    for each in subscriptions:
        by_position.setdefault(each.text.position, []).append(each)
    for position, them in by_position.items():
        read, failed = await in_thread(read_isolated, get_queue().live.at, {each.agent_id: position for each in them})
        found = {agent_id: chunk for chunks in read for agent_id, chunk in chunks.items()}
        unread.update(each for each in them if each.agent_id in failed)
        for each in them:
            if each.text.must_resume and each not in unread:  # else another reading was faster
                each.text.resume(found.get(each.agent_id))
                each.announce_text()
    return unread


def _read_text(after: Mapping[UUID, str]) -> list[Chunk]:
    return get_queue().live.read(after, MAX_CHUNKS)


async def look_at_feeds(subscriptions: Iterable[FeedSubscription]) -> None:
    """Compare what these clients know with the feed as it is, and tell them the differences."""
    taking = [each for each in subscriptions if each.is_ready and each.has_room()]
    if not taking:
        return
    for each in taking:
        each.is_behind = False
    for each, states in await in_thread(_read_feeds, taking):
        for state in states:
            each.accept(state)


def _read_feeds(subscriptions: list[FeedSubscription]) -> list[tuple[FeedSubscription, list[State]]]:
    """Read each feed once for all who see the same, as the SQL of their views shows; leave out what cannot be read."""
    same: dict[str, list[FeedSubscription]] = {}
    views: dict[str, ActivityQuerySet] = {}
    policy = get_policy()
    for each in subscriptions:
        try:
            visible = policy.visible(each.user, Activity.objects.all())
            view = "" if visible.query.is_empty() else repr(visible.query.sql_with_params())
        except Exception as error:  # noqa: BLE001  # whatever a project's policy raises for this user
            throttled.warn("A follower's feed cannot be read; the others' are.", error)
            continue
        same.setdefault(view, []).append(each)
        views[view] = visible
    found, _ = read_isolated(lambda wanted: _read_views(views, wanted), same)
    return [pair for pairs in found for pair in pairs]


def _read_views(
    views: Mapping[str, ActivityQuerySet], same: Mapping[str, list[FeedSubscription]]
) -> list[tuple[FeedSubscription, list[State]]]:
    found: list[tuple[FeedSubscription, list[State]]] = []
    for view, them in same.items():
        states = read_feed(views[view], {agent_id for each in them for agent_id in each.active})
        changed = [state for state in states if not all(each.has_seen(state) for each in them)]
        newest = last_log_ids([UUID(state.item["agent_id"]) for state in changed]) if changed else {}
        for state in changed:
            state.last_log_id = newest.get(UUID(state.item["agent_id"]), 0)
        found += [(each, changed) for each in them]
    return found
