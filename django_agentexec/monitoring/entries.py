"""Workers' entries, read leniently: during a rolling deploy a newer release may write what this one does not know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from ..conf import conf
from ..queues import WorkerInfo, get_queue
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
    reading = get_queue().workers()
    workers, unreadable = [], list(reading.unreadable)
    for info in reading:
        try:
            workers.append(_schema(info, reading.now))
        except (ValidationError, TypeError, ValueError, OverflowError, OSError):
            unreadable.append(str(info.id))
    return WorkerList(workers, unreadable)


def _schema(info: WorkerInfo, now: float) -> WorkerSchema:
    return WorkerSchema(
        started_at=datetime.fromtimestamp(info.started, UTC),
        last_beat_at=datetime.fromtimestamp(info.last_beat, UTC),
        is_alive=now - info.last_beat <= conf.LEASE,  # both by the queue's clock
        **{name: value for name, value in info.as_dict().items() if name not in _TIMES},
    )
