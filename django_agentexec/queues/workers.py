"""What is known of the worker processes: their entries, which other releases may have written, and how to read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

FORGOTTEN_AFTER = 300.0
"""Seconds without a heartbeat, by the queue's clock, after which an entry is deleted."""

LATEST_TIME = 253_402_300_799.0
"""The last second of the year 9999: no date is later."""


@dataclass(slots=True)
class WorkerInfo:
    """What a worker process reports about itself with each heartbeat. Times are Unix seconds."""

    id: str
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    quarantine: bool
    started: float
    last_beat: float = 0.0
    """When it was heard from last: by its own clock until it is announced, then by the queue's."""
    running: int = 0
    done: int = 0
    failed: int = 0

    def silence(self, now: float) -> float:
        """Return the seconds since the heartbeat that is being announced, `now` by the worker's own clock."""
        return max(0.0, now - self.last_beat) if self.last_beat else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


class WorkersReading(list[WorkerInfo]):
    """The workers, the oldest first, as they were read.

    `unreadable` holds the ids of entries that are not understood, such as those of a release with another format.
    `now` is the time of the reading by the queue's clock: compare `last_beat` with it, and with no other clock.
    """

    def __init__(self, workers: Iterable[WorkerInfo] = (), *, unreadable: Iterable[str] = (), now: float) -> None:
        super().__init__(sorted(workers, key=lambda worker: worker.started))
        self.unreadable = sorted(unreadable)
        self.now = now


_entries = TypeAdapter(WorkerInfo)


def read_entry(text: bytes) -> WorkerInfo | None:
    """Return a worker from its entry, or None if that cannot be read. Unknown fields are skipped."""
    try:
        worker = _entries.validate_json(text)
    except ValidationError:
        return None
    is_dated = all(0 <= at <= LATEST_TIME for at in (worker.started, worker.last_beat))  # NaN is not
    return worker if is_dated else None
