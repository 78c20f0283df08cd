"""Workers' entries, read leniently: during a rolling deploy a newer release may write what this one does not know."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from ..conf import conf
from ..queues import Queue, WorkerInfo, get_queue
from ..queues.connection import reachable
from ..queues.redis import RedisQueue
from .schemas import WorkerSchema

FORGOTTEN_AFTER = 300.0  # seconds without a heartbeat
_NAMES = tuple(field.name for field in fields(WorkerInfo))
_TIMES = ("started", "last_beat")


@dataclass(frozen=True, slots=True)
class WorkerList:
    """The worker processes that the queue's server knows."""

    workers: list[WorkerSchema]
    unreadable: list[str]
    """Ids of workers whose entry cannot be read; they are not in `workers`."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with the entries, in words."""
        return [
            f"The entry of worker {name} cannot be read (another release?); the worker is not shown."
            for name in self.unreadable
        ]


def worker_list() -> WorkerList:
    """Return the workers that have sent a heartbeat in the last five minutes. Raises `QueueUnavailable`."""
    infos, unreadable, now = _read_entries(get_queue())
    workers = []
    for info in infos:
        try:
            workers.append(_schema(info, now))
        except (ValidationError, TypeError, ValueError, OverflowError, OSError):
            unreadable.append(str(info.id))
    return WorkerList(workers, unreadable)


def _schema(info: WorkerInfo, now: float) -> WorkerSchema:
    return WorkerSchema(
        started_at=datetime.fromtimestamp(info.started, UTC),
        last_beat_at=datetime.fromtimestamp(info.last_beat, UTC),
        is_alive=now - info.last_beat <= conf.LEASE,
        **{name: value for name, value in info.as_dict().items() if name not in _TIMES},
    )


def _read_entries(queue: Queue) -> tuple[list[WorkerInfo], list[str], float]:
    """Return the entries of `queue`, the ids of those that cannot be read, and the time to compare heartbeats with.

    A queue that reads leniently itself tells `unreadable` ids and `now` by its own clock.
    """
    try:
        reading: Any = queue.workers()
    except (TypeError, ValueError, KeyError):
        if not isinstance(queue, RedisQueue):
            raise
        return _read_redis(queue)
    return list(reading), list(getattr(reading, "unreadable", ())), getattr(reading, "now", time.time())


def _read_redis(queue: RedisQueue) -> tuple[list[WorkerInfo], list[str], float]:
    """Do so for a Redis queue whose `workers` fails at an entry of another release."""
    with reachable():
        found: Any = queue.client.hgetall(f"{conf.KEY_PREFIX}:workers")
    infos, unreadable, now = [], [], time.time()
    for key, text in found.items():
        try:
            values = json.loads(text)
            info = WorkerInfo(
                **{field.name: values[field.name] for field in fields(WorkerInfo) if field.name in values}
            )
            if now - info.last_beat <= FORGOTTEN_AFTER:
                infos.append(info)
        except (ValueError, TypeError, KeyError):
            unreadable.append(key.decode(errors="replace"))
    return sorted(infos, key=lambda info: info.started), unreadable, now
