"""Announces changes to whoever follows, in any process; connected to the signals by the app `django_agentexec.live`.

The receivers note ids, in microseconds. One daemon thread per process does the rest: it asks who is watching,
and sends each watched topic at most one hint per interval. It owns an event loop, because connections of a
channel layer belong to the loop that made them.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import close_old_connections, connections

from ..background import BatchingThread
from ..conf import conf
from ..models import Activity, ActivityLog
from ..policy import get_policy
from ..queues import get_queue
from ..signals import changes_committed, text_streamed, worker_stopped
from ..throttled_logging import ThrottledLogger
from .channel_layer import shared_layer
from .hub import tell_this_process, topics_of_this_process
from .topics import ChangeNotice, activity_topic, feed_topic, feeds

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

LOOK_INTERVAL = 0.5  # seconds that the answer to "who is watching?" is believed
MAX_CHANGES = 10_000  # that wait to be announced; what is dropped, followers find by looking themselves
MAX_PER_HINT = 500
SEND_TIMEOUT = 5.0  # seconds for all hints of one interval
QUIET = 1.0  # seconds without a change after which the thread gives its database connection back
FLUSH_TIMEOUT = 2.0  # seconds that the end of a process waits for the last hints


class Publisher(BatchingThread):
    """Collects what changed, and announces it from its thread."""

    thread_name = "agentexec-publisher"

    def _reset(self) -> None:
        super()._reset()
        self._changed: dict[UUID, int] = {}
        self._streamed: set[UUID] = set()
        self._watched: frozenset[str] = frozenset()
        self._looked = -LOOK_INTERVAL

    def note(self, changes: Iterable[tuple[UUID, int]]) -> None:
        """Activities changed, each with this log line or (0) without one."""
        with self._lock:
            changed = self._changed  # another one in each round
            for agent_id, log_id in changes:
                known = changed.get(agent_id)
                if known is not None or len(changed) < MAX_CHANGES:
                    changed[agent_id] = max(log_id, known or 0)
            self._wake()

    def note_text(self, agent_ids: Iterable[UUID]) -> None:
        """These activities have streamed text."""
        with self._lock:
            self._streamed.update(agent_ids)
            self._wake()

    def _run(self) -> None:
        with asyncio.Runner() as self._runner:
            super()._run()

    def _wait(self) -> None:
        if not self._has_items.wait(QUIET):
            connections.close_all()
            super()._wait()

    def _interval(self) -> float:
        # While nobody watches, there is no hurry to look whether somebody does.
        return conf.LIVE_INTERVAL if self._watched else LOOK_INTERVAL

    def _process_batch(self) -> None:
        try:
            self._announce()
        except Exception as error:  # noqa: BLE001  # database, queue or layer are away: nobody may suffer
            throttled.warn("Live followers are not told of changes at present; they look themselves.", error)
            close_old_connections()

    def _announce(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
            streamed, self._streamed = self._streamed, set()
        watched = self._look()
        if not watched:
            return
        hints = [
            ChangeNotice(topic, {agent_id: changed[agent_id]} if agent_id in changed else {}, agent_id in streamed)
            for agent_id in changed.keys() | streamed
            if (topic := activity_topic(agent_id)) in watched
        ]
        if changed and feeds(watched):
            hints += _feed_notices(changed, feeds(watched))
        if hints:
            self._runner.run(_send(hints))

    def _look(self) -> frozenset[str]:
        """Return what is watched, as it was half a second ago at worst."""
        here = topics_of_this_process() if shared_layer() is None else frozenset()
        now = time.monotonic()
        # While nobody watched, each round looks: a new follower's first change is late, but not lost.
        if not self._watched or now - self._looked >= LOOK_INTERVAL:
            self._looked = now
            self._watched = get_queue().live.watched() | here
        return self._watched | here


async def _send(hints: list[ChangeNotice]) -> None:
    layer = shared_layer()
    if layer is None:
        for hint in hints:
            tell_this_process(hint)
        return
    async with asyncio.timeout(SEND_TIMEOUT):
        for hint in hints:
            await layer.group_send(hint.topic, hint.as_message())


def _feed_notices(changed: Mapping[UUID, int], watched: frozenset[str]) -> list[ChangeNotice]:
    """Return the hints for feeds: each gets those of the activities that its audience may see."""
    policy = get_policy()
    by_topic: dict[str, dict[UUID, int]] = {}
    ids = list(changed)
    for start in range(0, len(ids), MAX_PER_HINT):
        rows = Activity.objects.without_payloads().filter(pk__in=ids[start : start + MAX_PER_HINT])
        for row in rows:
            try:
                topics = {feed_topic(audience) for audience in policy.audiences(row)}
            except Exception as error:  # noqa: BLE001  # whatever a project's policy raises for this row
                throttled.warn("The policy fails to name an activity's audiences.", error)
                continue
            for topic in topics & watched:
                by_topic.setdefault(topic, {})[row.agent_id] = changed[row.agent_id]
    return [
        ChangeNotice(topic, dict(entries[start : start + MAX_PER_HINT]))
        for topic, found in by_topic.items()
        for entries in [list(found.items())]
        for start in range(0, len(entries), MAX_PER_HINT)
    ]


publisher = Publisher()


def connect() -> None:
    """Announce every change of this process from now on."""
    changes_committed.connect(_on_changes, Activity, dispatch_uid="agentexec.publisher.changed")
    text_streamed.connect(_on_text, dispatch_uid="agentexec.publisher.streamed")
    worker_stopped.connect(_flush, dispatch_uid="agentexec.publisher.stopped")
    atexit.register(_flush)


def _on_changes(changes: Iterable[tuple[Activity, ActivityLog | None, object]], **signal: Any) -> None:
    publisher.note((activity.agent_id, line.id if line else 0) for activity, line, _ in changes)


def _on_text(agent_ids: Iterable[UUID], **signal: Any) -> None:
    publisher.note_text(agent_ids)


def _flush(**signal: Any) -> None:
    """Announce what is left; a worker's process does not come as far as `atexit`, so it is told by the signal."""
    publisher.flush(FLUSH_TIMEOUT)
