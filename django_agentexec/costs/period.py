"""The days of a report, in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from ..exceptions import InvalidOption

MAX_DAYS = 400
DEFAULT_DAYS = 28
_FIRST, _LAST = date(1970, 1, 2), date(9999, 12, 30)
_NO_REGIONS = frozenset({"Factory", "localtime", "posixrules"})  # of the system, unknown to databases


@dataclass(frozen=True)
class Period:
    """A range of days, both included."""

    first: date
    last: date
    zone: tzinfo

    @classmethod
    def of(cls, first: date | None = None, last: date | None = None, zone: tzinfo | None = None) -> Period:
        """Return the period between two days; by default, the 28 days up to `last`, which is today by default.

        Raises `InvalidOption` for an empty or too long period.
        """
        zone = zone or timezone.get_current_timezone()
        last = last or current_day(zone)
        first = first or _days_before(last, DEFAULT_DAYS - 1)
        if not _FIRST <= first <= last <= _LAST:
            text = _("The period from %(first)s to %(last)s is empty: give a first day that is not after the last.")
            raise InvalidOption(text % {"first": first, "last": last})
        if (last - first).days >= MAX_DAYS:
            text = _("The period from %(first)s to %(last)s has %(days)s days: give at most %(maximum)s.")
            values = {"first": first, "last": last, "days": (last - first).days + 1, "maximum": MAX_DAYS}
            raise InvalidOption(text % values)
        return cls(first, last, zone)

    @property
    def days(self) -> list[date]:
        """All days."""
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]

    @property
    def start(self) -> datetime:
        """The beginning of the first day."""
        return self._midnight(self.first)

    @property
    def end(self) -> datetime:
        """The end of the last day, which is not part of it."""
        return self._midnight(self.last + timedelta(days=1))

    @property
    def previous(self) -> Period:
        """The same number of days before it."""
        return Period(_days_before(self.first, len(self.days)), _days_before(self.first, 1), self.zone)

    def _midnight(self, day: date) -> datetime:
        midnight = datetime.combine(day, time())
        return timezone.make_aware(midnight, self.zone) if settings.USE_TZ else midnight


def _days_before(day: date, days: int) -> date:
    """Return the day that many days before, but no day that some database or time zone cannot compare."""
    return day - timedelta(days=days) if day >= _FIRST + timedelta(days=days) else min(day, _FIRST)


def current_day(zone: tzinfo | None = None) -> date:
    """Return today's date in a time zone, by default the current time zone."""
    return timezone.localdate(timezone=zone) if settings.USE_TZ else date.today()


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database. Raises `InvalidOption` for another name."""
    if name not in _zone_names():
        text = _("%(name)r is not a time zone: give a name such as UTC or Europe/Berlin.")
        raise InvalidOption(text % {"name": name[:80]})
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_REGIONS
