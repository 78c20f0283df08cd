"""Readers of the workers' entries. They ignore unknown fields, which a newer release may write during a deploy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils.translation import gettext as _
from pydantic import ValidationError

from ..conf import conf
from ..queues import WorkerInfo, get_queue
from .schemas import WorkerSchema

_TIMES = ("started", "last_beat")


@dataclass(frozen=True, slots=True)
class WorkerList:
    """The registered worker processes."""

    workers: list[WorkerSchema]
    unreadable: list[str]
    """Ids of workers whose entry is invalid; they are not in `workers`."""

    @property
    def problems(self) -> list[str]:
        """Sentences about invalid entries."""
        text = _("Could not read the entry of worker %(worker)s (another release?); the worker is not shown.")
        return [text % {"worker": name} for name in self.unreadable]


def worker_list() -> WorkerList:
    """Return the workers with a heartbeat in the last five minutes. Raises `QueueUnavailable`."""
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
        is_alive=now - info.last_beat <= conf.LEASE,  # both times are of the queue's clock
        **{name: value for name, value in info.as_dict().items() if name not in _TIMES},
    )
