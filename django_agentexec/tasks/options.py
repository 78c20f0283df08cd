"""Checks of the options that tasks and enqueues take. Each returns the value in its final form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from ..exceptions import InvalidOption
from ..models import Priority

_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
MAX_IDEMPOTENCY_KEY = 255  # characters; the column's size


def checked_priority(value: int) -> Priority:
    """Return a `Priority`; raise `InvalidOption` for another number."""
    try:
        return Priority(value)
    except ValueError as error:
        names = ", ".join(f"Priority.{p.name}" for p in Priority)
        raise InvalidOption(f"Priority {value!r} is unknown; there are {names}.") from error


def checked_queue(name: str) -> str:
    """Return a queue's name; raise `InvalidOption` if it is not 1 to 100 letters, digits, dots or dashes."""
    if not isinstance(name, str) or not _QUEUE_NAME.fullmatch(name):
        raise InvalidOption(f"{name!r} is no queue name: use 1 to 100 letters, digits, '_', '.' and '-'.")
    return name


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata as a dictionary; raise `InvalidOption` if it is not JSON with text as keys."""
    values = dict(metadata or {})
    try:
        text = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"Metadata {values!r} cannot be stored as JSON: {error}.") from error
    if not all(isinstance(key, str) for key in values) or "\\u0000" in text:
        raise InvalidOption(f"Metadata {values!r} needs text as keys, and no NUL characters.")
    return values


def checked_idempotency_key(key: str | None) -> str | None:
    """Return the key; raise `InvalidOption` if it is empty or longer than 255 characters."""
    if key is not None and not (isinstance(key, str) and 1 <= len(key) <= MAX_IDEMPOTENCY_KEY and "\x00" not in key):
        raise InvalidOption(f"Idempotency key {key!r} must be text of 1 to {MAX_IDEMPOTENCY_KEY} characters.")
    return key


def due_time(delay: float | timedelta | None, run_after: datetime | None) -> datetime | None:
    """Return when an activity is due, or None for at once. Raises `InvalidOption`."""
    if delay is not None and run_after is not None:
        raise InvalidOption("Give delay or run_after, not both.")
    if run_after is not None:
        if timezone.is_naive(run_after):
            raise InvalidOption(f"run_after={run_after!r} has no time zone; use django.utils.timezone.now() + ...")
        return run_after
    if delay is None:
        return None
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 10**9:
        raise InvalidOption(f"delay={delay!r} must be seconds (or a timedelta), not negative.")
    return timezone.now() + timedelta(seconds=seconds) if seconds else None
