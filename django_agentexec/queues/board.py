"""The board of a queue backend: registered workers, leadership and counters, shared by all processes.

Entries of workers may have been written by other releases; `read_entry` skips the fields that it does not know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

WORKER_TTL = 300.0
"""Seconds without a heartbeat, by the queue's clock, after which an entry is deleted."""

MAX_TIMESTAMP = 253_402_300_799.0
"""The last second of the year 9999, the last that Python can represent as a date."""


@dataclass(slots=True)
class WorkerInfo:
    """The state of a worker process that each heartbeat reports. Times are Unix seconds."""

    id: str
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    quarantine: bool
    started: float
    last_beat: float = 0.0
    """The time of the last heartbeat: by the worker's clock until it is registered, then by the queue's clock."""
    running: int = 0
    done: int = 0
    failed: int = 0

    def silence(self, now: float) -> float:
        """Return the age in seconds of the heartbeat that is being registered; `now` is by the worker's clock."""
        return max(0.0, now - self.last_beat) if self.last_beat else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


class WorkersReading(list[WorkerInfo]):
    """The registered workers at one moment, oldest first.

    `unreadable` holds the ids of entries that cannot be parsed, such as those of a release with another format.
    `now` is the time of the reading by the queue's clock: compare `last_beat` with it, and with no other clock.
    """

    def __init__(self, workers: Iterable[WorkerInfo] = (), *, unreadable: Iterable[str] = (), now: float) -> None:
        super().__init__(sorted(workers, key=lambda worker: worker.started))
        self.unreadable = sorted(unreadable)
        self.now = now


_entries = TypeAdapter(WorkerInfo)


def read_entry(text: bytes) -> WorkerInfo | None:
    """Return a worker from its entry, or None if the entry cannot be parsed. Unknown fields are skipped."""
    try:
        worker = _entries.validate_json(text)
    except ValidationError:
        return None
    has_valid_times = all(0 <= at <= MAX_TIMESTAMP for at in (worker.started, worker.last_beat))  # False for NaN
    return worker if has_valid_times else None


class Board(ABC):
    """State that processes share beside the activities. Verbs raise `QueueUnavailable`; all are thread-safe."""

    @abstractmethod
    def register_worker(self, worker: WorkerInfo) -> None:
        """Store a heartbeat of a worker process, by the queue's clock; delete entries without recent heartbeats."""

    @abstractmethod
    def deregister_worker(self, worker_id: str) -> None:
        """Delete the entry of a worker process."""

    @abstractmethod
    def workers(self) -> WorkersReading:
        """Return the worker processes with a heartbeat in the last 5 minutes by the queue's clock.

        Entries that cannot be parsed are skipped and listed in `unreadable`.
        """

    @abstractmethod
    def try_acquire_leadership(self, role: str, holder: str, seconds: float) -> bool:
        """Return whether `holder` leads `role` for the next `seconds`; a role has at most one leader."""

    @abstractmethod
    def increment_counters(self, counts: Mapping[str, Mapping[str, float]], *, seconds: float) -> None:
        """Add to counters, by name and field, in one round trip. Names expire `seconds` after the last addition."""

    @abstractmethod
    def read_counters(self, names: Sequence[str]) -> list[dict[str, float]]:
        """Return the counters of these names, each by field, in one round trip."""
