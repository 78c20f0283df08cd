"""Times and time spans in the output of commands. Times are in Django's current time zone."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils import timezone

from ..time_spans import largest_units

_SHORT = {"min": "m"}


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
    return " ".join(f"{number}{_SHORT.get(unit, unit)}" for number, unit in largest_units(seconds))
