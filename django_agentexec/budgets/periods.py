"""Days and months in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.utils import timezone

from ..choices import BudgetPeriod


@dataclass(frozen=True, slots=True)
class Period:
    """A day or a month."""

    name: str
    """Such as "2026-11-28" or "2026-11"."""
    ends_at: datetime
    """The start of the next, in the form of the project's rows."""


def period_at(kind: str, time_zone: str, now: datetime) -> Period:
    """Return the day or month of a time in a time zone ("": that of the settings)."""
    zone = _zone(time_zone)
    today = (now if timezone.is_aware(now) else timezone.make_aware(now)).astimezone(zone).date()
    if kind == BudgetPeriod.DAY:
        return Period(today.isoformat(), _midnight(today + timedelta(days=1), zone))
    following = date(today.year + today.month // 12, today.month % 12 + 1, 1)
    return Period(f"{today:%Y-%m}", _midnight(following, zone))


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name) if name else timezone.get_default_timezone()
    except (ZoneInfoNotFoundError, ValueError):  # written without validation, or unknown on this machine
        return timezone.get_default_timezone()


def _midnight(day: date, zone: tzinfo) -> datetime:
    moment = datetime.combine(day, time(), zone)
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())
