"""Times as the commands write them: in Django's current time zone, which a command's output names once."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils import timezone


def local(moment: datetime) -> datetime:
    """Return `moment` in the current time zone; rows of a project without USE_TZ are in it already."""
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
