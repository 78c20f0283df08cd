"""How the admin writes durations, counts and JSON. `static/agentexec/js/format.js` writes the first two alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units, such as "1.4 s", "3 min 4 s" or "2 d 5 h"; "" for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    for unit, name, below, below_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"


def age(seconds: float) -> str:
    """Return a time span in its largest unit: "12 s", "3 min", "2 d"."""
    whole = max(0, int(seconds))
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if whole >= unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"


def compact(number: int) -> str:
    """Return a count in four characters or so: "950", "12.4k", "3.1M"."""
    for size, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + suffix
    return str(number)


def total_tokens(usage: Mapping[str, int] | None) -> int:
    """Return all tokens of a usage: its own total, or input and output together."""
    known = usage or {}
    return known.get("total_tokens") or known.get("input_tokens", 0) + known.get("output_tokens", 0)


def span(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two times, or None if one is missing."""
    return (end - start).total_seconds() if start and end else None


def pretty_json(value: Any) -> str:
    """Return a stored JSON value indented, one entry a line, with letters of every script as they are."""
    return json.dumps(value, indent=2, ensure_ascii=False)
