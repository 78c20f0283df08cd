"""Publisher of change notices to the subscribers of all processes; connected by the app `django_agentexec.live`.

The signal receivers record ids, in microseconds. One daemon thread per process does the rest: it reads which topics are
watched and sends each of them at most one notice per interval. The thread has its own event loop, because the
connections of a channel layer belong to the loop that created them.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import close_old_connections, connections

from ..background import BatchingThread
from ..calls.operations import BeginCall, FinishCall
from ..conf import conf
from ..logs import ThrottledLogger
from ..models import Activity, ActivityLog
from ..policy import get_policy
from ..queues import get_queue
from ..signals import changes_committed, text_streamed, worker_stopped
from .channel_layer import ChangeNotice, activity_topic, feed_topic, feed_topics, shared_layer
from .hub import local_topics, notify_local_hubs

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

WATCHED_INTERVAL = 0.5  # seconds for which the set of watched topics is cached
MAX_CHANGES = 10_000  # that wait to be published; the poll of the hubs finds the changes above this number
MAX_PER_NOTICE = 500
SEND_TIMEOUT = 5.0  # seconds for all notices of one interval
IDLE_TIMEOUT = 1.0  # seconds without a change after which the thread closes its database connection
FLUSH_TIMEOUT = 2.0  # seconds that the end of a process waits for the last notices


class Publisher(BatchingThread):
    """A thread that batches changes and publishes them."""

    thread_name = "agentexec-publisher"

    def _reset(self) -> None:
        super()._reset()
        self._changed: dict[UUID, int] = {}
        self._streamed: set[UUID] = set()
        self._calling: set[UUID] = set()
        self._watched: frozenset[str] = frozenset()
        self._watched_at = -WATCHED_INTERVAL

    def record(self, changes: Iterable[tuple[UUID, int]]) -> None:
        """Record changed activities, each with the id of its log line, or 0."""
        with self._lock:
            changed = self._changed  # replaced by each batch
            for agent_id, log_id in changes:
                known = changed.get(agent_id)
                if known is not None or len(changed) < MAX_CHANGES:
                    changed[agent_id] = max(log_id, known or 0)
            self._wake()

    def record_calls(self, agent_ids: Iterable[UUID]) -> None:
        """Record activities whose calls have started or ended; call it before `record`."""
        with self._lock:
            if len(self._calling) < MAX_CHANGES:
                self._calling.update(agent_ids)

    def record_text(self, agent_ids: Iterable[UUID]) -> None:
        """Record activities with streamed text."""
        with self._lock:
            self._streamed.update(agent_ids)
            self._wake()

    def _run(self) -> None:
        with asyncio.Runner() as self._runner:
            super()._run()

    def _wait(self) -> None:
        if not self._has_items.wait(IDLE_TIMEOUT):
            connections.close_all()
            super()._wait()

    def _interval(self) -> float:
        # Without watched topics, the next check for them is not urgent.
        return conf.LIVE_INTERVAL if self._watched else WATCHED_INTERVAL

    def _process_batch(self) -> None:
        try:
            self._publish()
        except Exception as error:  # noqa: BLE001  # database, queue or layer are unavailable; the caller must not fail
            throttled.warn("Could not publish changes; live subscribers poll the database instead.", error)
            close_old_connections()

    def _publish(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
            streamed, self._streamed = self._streamed, set()
            calling, self._calling = self._calling, set()
        watched = self._read_watched()
        if not watched:
            return
        notices = [
            ChangeNotice(
                topic,
                {agent_id: changed[agent_id]} if agent_id in changed else {},
                agent_id in streamed,
                agent_id in calling,
            )
            for agent_id in changed.keys() | streamed
            if (topic := activity_topic(agent_id)) in watched
        ]
        if changed and (feeds := feed_topics(watched)):
            notices += _feed_notices(changed, feeds)
        if notices:
            self._runner.run(_send(notices))

    def _read_watched(self) -> frozenset[str]:
        """Return the watched topics, cached for half a second."""
        local = local_topics() if shared_layer() is None else frozenset()
        now = time.monotonic()
        # Without watched topics there is no cache: a new subscriber's first change is late, but not lost.
        if not self._watched or now - self._watched_at >= WATCHED_INTERVAL:
            self._watched_at = now
            self._watched = get_queue().live.watched() | local
        return self._watched | local


async def _send(notices: list[ChangeNotice]) -> None:
    layer = shared_layer()
    if layer is None:
        for notice in notices:
            notify_local_hubs(notice)
        return
    async with asyncio.timeout(SEND_TIMEOUT):
        for notice in notices:
            await layer.group_send(notice.topic, notice.as_message())


def _feed_notices(changed: Mapping[UUID, int], watched: frozenset[str]) -> list[ChangeNotice]:
    """Return the notices for feeds: each names the activities that its audience may see."""
    policy = get_policy()
    by_topic: dict[str, dict[UUID, int]] = {}
    ids = list(changed)
    for start in range(0, len(ids), MAX_PER_NOTICE):
        rows = Activity.objects.without_payloads().filter(pk__in=ids[start : start + MAX_PER_NOTICE])
        for row in rows:
            try:
                topics = {feed_topic(audience) for audience in policy.audiences(row)}
            except Exception as error:  # noqa: BLE001  # any error of a project's policy for this row
                throttled.warn("The policy failed to return the audiences of an activity.", error)
                continue
            for topic in topics & watched:
                by_topic.setdefault(topic, {})[row.agent_id] = changed[row.agent_id]
    return [
        ChangeNotice(topic, dict(entries[start : start + MAX_PER_NOTICE]))
        for topic, found in by_topic.items()
        for entries in [list(found.items())]
        for start in range(0, len(entries), MAX_PER_NOTICE)
    ]


publisher = Publisher()


def connect() -> None:
    """Publish the changes of this process from now on; called when the app is ready."""
    changes_committed.connect(_on_changes, Activity, dispatch_uid="agentexec.publisher.changed")
    text_streamed.connect(_on_text, dispatch_uid="agentexec.publisher.streamed")
    worker_stopped.connect(_flush, dispatch_uid="agentexec.publisher.stopped")
    atexit.register(_flush)


def _on_changes(changes: Sequence[tuple[Activity, ActivityLog | None, object]], **signal: Any) -> None:
    calling = {activity.agent_id for activity, _, operation in changes if isinstance(operation, BeginCall | FinishCall)}
    if calling:
        publisher.record_calls(calling)
    publisher.record((activity.agent_id, line.id if line else 0) for activity, line, _ in changes)


def _on_text(agent_ids: Iterable[UUID], **signal: Any) -> None:
    publisher.record_text(agent_ids)


def _flush(**signal: Any) -> None:
    """Publish the remaining changes. A worker process ends without `atexit`, so it sends a signal instead."""
    publisher.flush(FLUSH_TIMEOUT)
