"""Readers of the counters: totals for Prometheus, and values per minute for charts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate

from ..queues import get_queue
from .metrics import DURATION_BUCKETS, TOTAL, WAIT_BUCKETS, minute_name, parts
from .schemas import MinuteSchema

HOUR = 60  # minutes
RATE_MINUTES = 5


@dataclass
class Histogram:
    """A histogram of durations, in seconds."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets; the last bound is infinite."""
    counts: list[float]
    """Observations in each bucket; not cumulative."""
    total: float = 0.0
    """Sum of all observations."""

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Histogram:
        """Return a histogram without observations."""
        return cls(bounds, [0.0] * len(bounds))

    def add(self, bound: float, count: float) -> None:
        """Add observations to the bucket with this upper bound; ignore a bound of an older release."""
        if bound in self.bounds:
            self.counts[self.bounds.index(bound)] += count

    def quantile(self, share: float) -> float | None:
        """Return the upper bound of the bucket with this quantile (0 to 1), at most the largest finite bound."""
        wanted = share * sum(self.counts)
        if not wanted:
            return None
        cumulated = accumulate(self.counts)
        bound = next(bound for bound, seen in zip(self.bounds, cumulated, strict=True) if seen >= wanted)
        return min(bound, self.bounds[-2])


def _histograms(bounds: tuple[float, ...]) -> dict[str, Histogram]:
    return defaultdict(lambda: Histogram.empty(bounds))


@dataclass
class Counters:
    """Totals of all processes since the server of the queue last lost its data."""

    enqueued: dict[tuple[str, str], float] = field(default_factory=dict)
    """By task and queue."""
    finished: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """By task, queue and status."""
    tokens: dict[tuple[str, str], float] = field(default_factory=dict)
    """By task and kind, such as `input_tokens`; also `requests`."""
    model_tokens: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """By task, model and kind, of recorded calls."""
    cost: dict[tuple[str, str], float] = field(default_factory=dict)
    """US dollars, by task and model, of calls whose price is known."""
    unpriced_tokens: dict[tuple[str, str], float] = field(default_factory=dict)
    """Input and output tokens without a known price, by task and model."""
    wait: dict[str, Histogram] = field(default_factory=lambda: _histograms(WAIT_BUCKETS))
    """Seconds from the time an activity is due to its start, by task."""
    duration: dict[str, Histogram] = field(default_factory=lambda: _histograms(DURATION_BUCKETS))
    """Seconds from an activity's first start to its end, by task."""


def counters() -> Counters:
    """Return the totals. One round trip. Raises `QueueUnavailable`."""
    found = Counters()
    (totals,) = get_queue().read_counters([TOTAL])
    for name, amount in totals.items():
        match parts(name):
            case ["enqueued", task, queue]:
                found.enqueued[task, queue] = amount
            case ["finished", task, queue, status]:
                found.finished[task, queue, status] = amount
            case ["tokens", task, kind]:
                found.tokens[task, kind] = amount
            case ["model_tokens", task, model, kind]:
                found.model_tokens[task, model, kind] = amount
            case ["cost", task, model]:
                found.cost[task, model] = amount
            case ["unpriced_tokens", task, model]:
                found.unpriced_tokens[task, model] = amount
            case ["wait", task, bound]:
                found.wait[task].add(bound, amount)
            case ["wait_sum", task]:
                found.wait[task].total = amount
            case ["duration", task, bound]:
                found.duration[task].add(bound, amount)
            case ["duration_sum", task]:
                found.duration[task].total = amount
    return found


@dataclass
class LastHour:
    """The last sixty minutes, including the current minute."""

    minutes: list[MinuteSchema]
    """The minutes, oldest first."""
    per_minute: dict[str, float]
    """Activities that ended in the last five minutes, per minute, by queue."""


def last_hour(now: float | None = None) -> LastHour:
    """Return the counters of each minute. One round trip. `now` is in Unix seconds."""
    this = int((time.time() if now is None else now) // 60)
    numbers = range(this - HOUR + 1, this + 1)
    found = get_queue().read_counters([minute_name(number) for number in numbers])
    ended: dict[str, float] = defaultdict(float)
    for counts in found[-RATE_MINUTES:]:
        for name, amount in counts.items():
            match parts(name):
                case ["ended", queue]:
                    ended[queue] += amount / RATE_MINUTES
    return LastHour([_minute(number, counts) for number, counts in zip(numbers, found, strict=True)], dict(ended))


def _minute(number: int, counts: Mapping[str, float]) -> MinuteSchema:
    minute = MinuteSchema(start=datetime.fromtimestamp(number * 60, UTC))
    waits = Histogram.empty(WAIT_BUCKETS)
    for name, amount in counts.items():
        match parts(name):
            case ["enqueued" | "complete" | "error" | "canceled" as what]:
                setattr(minute, what, int(amount))
            case ["wait", bound]:
                waits.add(bound, amount)
    minute.wait_p50, minute.wait_p95 = waits.quantile(0.5), waits.quantile(0.95)
    return minute
