"""What tells of the servers, and leaves only for those who may see them: tracebacks and workers' names.

REST, server-sent events and websockets pass what they send to others than monitors through here.
"""

from __future__ import annotations

from typing import Any

_PRIVATE = ("traceback", "worker")


def for_strangers(shape: dict[str, Any]) -> dict[str, Any]:
    """Return a dumped activity, log line or event without what tells of the servers; these fields are empty."""
    return {
        key: "" if key in _PRIVATE else _inner(value) if key in ("activity", "activities", "logs") else value
        for key, value in shape.items()
    }


def _inner(value: Any) -> Any:
    if isinstance(value, list):
        return [for_strangers(one) for one in value]
    return for_strangers(value) if isinstance(value, dict) else value
