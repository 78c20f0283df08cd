"""Checks of the options that tasks and enqueues take. Each returns the value in its final form."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from ..exceptions import InvalidOption
from ..models import Priority
from ..validation import EARLIEST, LATEST, QUEUE_NAME, is_storable, is_storable_moment

MAX_IDEMPOTENCY_KEY = 255  # characters; the column's size


def check_names(verb: str, options: Mapping[str, object], known: type) -> None:
    """Raise `TypeError` for an option that `known` (a TypedDict) does not have, with the closest that it has."""
    names = [*known.__annotations__]
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(names)}."
            raise TypeError(f"{verb}() has no option {name!r}. {hint}")


def validate_priority(value: int) -> Priority:
    """Return a `Priority`; raise `InvalidOption` for another number."""
    if isinstance(value, bool) or value not in Priority.values:
        names = ", ".join(f"Priority.{p.name}" for p in Priority)
        raise InvalidOption(f"Priority {value!r} is unknown; there are {names}.")
    return Priority(value)


def validate_queue(name: str) -> str:
    """Return a queue's name; raise `InvalidOption` if it is not 1 to 100 letters, digits, dots or dashes."""
    if not isinstance(name, str) or not QUEUE_NAME.fullmatch(name):
        raise InvalidOption(f"{name!r} is no queue name: use 1 to 100 letters, digits, '_', '.' and '-'.")
    return name


def validate_idempotency_key(key: str | None) -> str | None:
    """Return the key; raise `InvalidOption` if it is empty, too long, or text that cannot be stored."""
    if key is None:
        return None
    if not (isinstance(key, str) and 1 <= len(key) <= MAX_IDEMPOTENCY_KEY and is_storable(key)):
        raise InvalidOption(f"Idempotency key {key!r} must be text of 1 to {MAX_IDEMPOTENCY_KEY} characters.")
    return key


def due_time(delay: float | timedelta | None, run_after: datetime | None) -> datetime | None:
    """Return when an activity is due, or None for at once. Raises `InvalidOption`."""
    if delay is not None and run_after is not None:
        raise InvalidOption("Give delay or run_after, not both.")
    if run_after is not None:
        return _stored_time(run_after)
    if delay is None:
        return None
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 10**9:
        raise InvalidOption(f"delay={delay!r} must be seconds (or a timedelta), not negative.")
    return timezone.now() + timedelta(seconds=seconds) if seconds else None


def _stored_time(moment: datetime) -> datetime:
    """Return `moment` as the project's rows hold it: aware, or local and naive where USE_TZ is off."""
    if not isinstance(moment, datetime):
        raise InvalidOption(f"run_after={moment!r} must be an aware datetime.")
    if not is_storable_moment(moment):
        raise InvalidOption(
            f"run_after={moment!r} is at the edge of the calendar: give a time from {EARLIEST.date()} to "
            f"{LATEST.date()} in UTC."
        )
    if not settings.USE_TZ:
        return moment if timezone.is_naive(moment) else timezone.make_naive(moment, timezone.get_default_timezone())
    if timezone.is_naive(moment):
        raise InvalidOption(f"run_after={moment!r} has no time zone; use django.utils.timezone.now() + ...")
    return moment
