"""Times and time spans in the output of commands. Times are in Django's current time zone."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils import timezone

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def local(moment: datetime) -> datetime:
    """Return `moment` in the current time zone. Without USE_TZ, stored times are local already."""
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment


def now() -> datetime:
    """Return the present time in the current time zone."""
    return datetime.now(UTC).astimezone(timezone.get_current_timezone())


def zone() -> str:
    """Return the name of the current time zone, such as `Europe/Berlin`."""
    return timezone.get_current_timezone_name()


def clock(moment: datetime) -> str:
    """Return the time of day."""
    return f"{local(moment):%H:%M:%S}"


def date_and_time(moment: datetime | None) -> str:
    """Return date and time of day, or "" for None."""
    return f"{local(moment):%Y-%m-%d %H:%M:%S}" if moment else ""


def time_span(seconds: float | None) -> str:
    """Return seconds in their two largest units, such as `3m 5s`; `-` for None."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    larger = [number for number, (size, _) in enumerate(_UNITS) if left >= size]
    first = larger[0] if larger else len(_UNITS) - 1
    parts: list[str] = []
    for size, unit in _UNITS[first : first + 2]:
        if left >= size or not parts:
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts)
