"""The collection of the history of a run: from the observer, the rows and Redis, without the proxies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from django_agentexec.conf import conf
from django_agentexec.models import Activity, ActivityLog
from django_agentexec.queues import get_queue
from django_agentexec.queues.redis import RedisQueue
from django_agentexec.queues.redis.queue import KEYS
from tests.chaos.history import History, Line, Row
from tests.chaos.observer import Event

QUEUE = "default"
EMPTIED = ("by_worker", "lapses")  # keys of the queue that are deleted with the last lease and activity
VANISHED = -2  # Redis's reply for a key that has expired meanwhile


def collect(events: Sequence[Event], processes_left: Sequence[str], exit_codes: dict[str, list[int]]) -> History:
    """Return the history of an ended run."""
    queue = get_queue()
    assert isinstance(queue, RedisQueue)
    keys = {key.decode(): queue.client.ttl(key) for key in queue.client.scan_iter(count=1_000)}
    return History(
        events=events,
        rows=list(_rows()),
        lines=list(_lines()),
        lease=conf.LEASE,
        started_message=conf.ACTIVITY_MESSAGE_STARTED,
        max_crashes=conf.MAX_CRASHES,
        max_expired_leases=conf.MAX_EXPIRED_LEASES,
        keys_left={key: seconds for key, seconds in keys.items() if seconds != VANISHED},
        queue_keys=[f"{{{conf.KEY_PREFIX}:{QUEUE}}}:{name}" for name in KEYS if name not in EMPTIED],
        occupied=asdict(queue.stats(QUEUE)),
        processes_left=processes_left,
        exit_codes=exit_codes,
    )


ROW = (
    "agent_id",
    "context",
    "agent_type",
    "status",
    "lock_key",
    "retries",
    "max_retries",
    "crashes",
    "fence",
    "result",
)


def _rows() -> Iterator[Row]:
    for agent_id, context, *values, error in (
        Activity.objects.order_by("agent_id").values_list(*ROW, "error").iterator()
    ):
        yield Row(str(agent_id), context.get("name", ""), *values, error)


def _lines() -> Iterator[Line]:
    found = ActivityLog.objects.order_by("id").values_list("id", "activity_id", "message", "status").iterator()
    return (Line(number, str(agent_id), message, status) for number, agent_id, message, status in found)
