"""Strict parsing of numbers and ids in external text: addresses, headers, messages and command lines.

`int` and `UUID` accept more than a number or an id: digits of other scripts, `1_000`, ` +1 `, numbers of thousands of
digits. What such text leads to fails later, in a database or in Redis, where it affects others.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any
from uuid import UUID

MAX_INT64 = 2**63 - 1
"""The largest integer of a database's `bigint`."""
_DIGITS = re.compile(r"[0-9]{1,19}")
_DECIMAL = re.compile(r"-?(?:[0-9]{1,19}(?:\.[0-9]{0,19})?|\.[0-9]{1,19})(?:[eE][+-]?[0-9]{1,3})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([smhdw])")
_ID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_digits(text: str, maximum: int = MAX_INT64) -> int | None:
    """Return the number from 0 to `maximum` that `text` is, in ASCII digits and nothing else; otherwise None."""
    number = int(text) if _DIGITS.fullmatch(text) else maximum + 1
    return number if number <= maximum else None


def parse_decimal(text: str) -> float | None:
    """Return the decimal number that `text` is, with an optional exponent (infinite above a float), otherwise None."""
    return float(text) if _DECIMAL.fullmatch(text) else None


def parse_day(text: str) -> date | None:
    """Return the day that `text` is in the form YYYY-MM-DD, otherwise None."""
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


def parse_duration(text: str) -> timedelta | None:
    """Return a duration such as `90s`, `15m`, `12h`, `30d` or `2w`, otherwise None. Raises `OverflowError`."""
    found = _DURATION.fullmatch(text.strip())
    return timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None


def as_seconds(duration: float | timedelta) -> float:
    """Return a duration in seconds; what is not a timedelta is returned unchanged."""
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def duration_seconds(value: float | timedelta | str) -> Any:
    """Return the seconds of a number, a timedelta or a text such as `4h`; another value is returned unchanged."""
    if isinstance(value, str):
        try:
            value = parse_duration(value) or value
        except OverflowError:
            return value
    return value if isinstance(value, str) else as_seconds(value)


def parse_id(text: str) -> UUID:
    """Return a UUID in one of its two usual forms, with or without dashes. Raises `ValueError` for anything else."""
    if not _ID.fullmatch(text):
        raise ValueError(f"{text[:50]!r} is not a UUID.")
    return UUID(text)
