"""Keys of limits, and rates such as `10/m`, as tasks and rows declare them."""

from __future__ import annotations

import re

from ..queues import Limit

MAX_RATE_COUNT = 100_000  # starts per period: the queue stores each start of the period
_PERIODS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,5})/(s|m|h|d)")


def task_key(name: str) -> str:
    """Return the key of the limits and pauses of a task."""
    return f"task:{name}"


def own_key(key: str) -> str:
    """Return the key of limits for an evaluated `concurrency_key`, which no text can turn into a task's key."""
    return f"key:{key}"


def tenant_key(key: str, value: str) -> str:
    """Return the key of a pause of activities with this metadata."""
    return f"tenant:{key}={value}"


def parse_rate(text: str) -> tuple[int, float]:
    """Return the starts and the seconds of a rate such as `10/m`. Raises `ValueError`."""
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) > MAX_RATE_COUNT:
        raise ValueError(
            f"{text!r} is no rate: give a number from 1 to {MAX_RATE_COUNT:,} and a period (s, m, h or d), such as 10/m"
        )
    return int(found[1]), float(_PERIODS[found[2]])


def limit_of(key: str, maximum: int | None, rate: str) -> Limit:
    """Return a limit; `rate` may be empty. Raises `ValueError` for an invalid rate."""
    count, period = parse_rate(rate) if rate else (None, 0.0)
    return Limit(key, maximum, count, period)
