"""Limits of a queue, and the partitions of activities that take turns without a lock.

A `Limit` bounds the activities that share its key, in one queue. A backend counts claims: the slot of a worker that
dies is free as soon as its claim is released.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

SEPARATOR = "\x1f"
SHARED = "f:"


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on the activities with this key: on those claimed at a time, on starts within a period, or on both."""

    key: str
    maximum: int | None = None
    """Claims at a time; 0 pauses."""
    count: int | None = None
    """Starts within any `period`, by the queue's clock."""
    period: float = 0.0
    """Seconds."""

    @property
    def numbers(self) -> str:
        """The numbers as text, in the format of the Redis backend's scripts; a missing number is empty."""
        maximum = "" if self.maximum is None else self.maximum
        rate = "=" if self.count is None else f"{self.count}={round(self.period * 1000)}"
        return f"{maximum}={rate}"

    @property
    def text(self) -> str:
        """The limit as text without spaces and control characters; `parse_limit` reads it."""
        return f"{quote_key(self.key)}={self.numbers}"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of rows that apply to a queue; they take precedence over the limits of messages with their keys."""

    by_key: Mapping[str, Limit] = field(default_factory=dict)
    is_paused: bool = False
    """Whether nothing is claimed from the queue."""

    @property
    def revision(self) -> str:
        """A short text that differs if the limits differ; "" if there are none."""
        if not self.by_key and not self.is_paused:
            return ""
        texts = [str(self.is_paused), *sorted(limit.text for limit in self.by_key.values())]
        return hashlib.sha256(SEPARATOR.join(texts).encode()).hexdigest()[:16]


NO_LIMITS = Limits()


def quote_key(key: str) -> str:
    """Return a key without spaces, control characters and '='."""
    return quote(key, safe=":@,;+*/!$'()")


def shared_partition(fair_key: str) -> str:
    """Return the partition of activities with this fair key, any number of which run at a time.

    Without a fair key, activities keep their order among those of other partitions.
    """
    return SHARED + quote_key(fair_key)


def joined(limits: Iterable[Limit]) -> str:
    """Return the texts of limits, each after a separator."""
    return "".join(f"{SEPARATOR}{limit.text}" for limit in limits)


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Return the limits of a text made by `joined`, which may follow a partition."""
    return tuple(map(parse_limit, text.split(SEPARATOR)[1:]))


def parse_limit(text: str) -> Limit:
    """Return a limit from its text."""
    key, maximum, count, period = text.split("=")
    return Limit(
        unquote(key),
        int(maximum) if maximum else None,
        int(count) if count else None,
        int(period) / 1000 if period else 0.0,
    )
