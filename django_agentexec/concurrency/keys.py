"""Keys of limits, as tasks and rows declare them."""

from __future__ import annotations

from ..queues import Limit
from ..rates import parse_rate


def task_key(name: str) -> str:
    """Return the key of the limits and pauses of a task."""
    return f"task:{name}"


def own_key(key: str) -> str:
    """Return the key of limits for an evaluated `concurrency_key`, which no text can turn into a task's key."""
    return f"key:{key}"


def tenant_key(key: str, value: str) -> str:
    """Return the key of a pause of activities with this metadata."""
    return f"tenant:{key}={value}"


def limit_of(key: str, maximum: int | None, rate: str) -> Limit:
    """Return a limit; `rate` may be empty. Raises `ValueError` for an invalid rate."""
    count, period = parse_rate(rate) if rate else (None, 0.0)
    return Limit(key, maximum, count, period)
