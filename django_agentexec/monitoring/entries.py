"""Workers' entries, read leniently: during a rolling deploy a newer release may write what this one does not know."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from ..conf import conf
from ..queues import Queue, WorkerInfo, get_queue
from ..queues.connection import reachable
from ..queues.redis import WORKER_FORGOTTEN_AFTER, RedisQueue
from .schemas import WorkerSchema

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
    infos, unreadable = _read_entries(get_queue())
    now, workers = time.time(), []
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


def _read_entries(queue: Queue) -> tuple[list[WorkerInfo], list[str]]:
    """Return the entries of `queue`, and the ids of those that cannot be read.

    Only this function knows how a Redis queue stores entries; it goes when `Queue.workers` itself reads leniently.
    """
    if not isinstance(queue, RedisQueue):
        return queue.workers(), []
    with reachable():
        found: Any = queue.client.hgetall(f"{conf.KEY_PREFIX}:workers")
    infos, unreadable = [], []
    for key, text in found.items():
        try:
            values = json.loads(text)
            info = WorkerInfo(**{name: values[name] for name in _known_names(values)})
            if time.time() - info.last_beat <= WORKER_FORGOTTEN_AFTER:
                infos.append(info)
        except (ValueError, TypeError, KeyError):
            unreadable.append(key.decode(errors="replace"))
    return sorted(infos, key=lambda info: info.started), unreadable


def _known_names(values: dict[str, object]) -> Iterator[str]:
    return (field.name for field in fields(WorkerInfo) if field.name in values)
