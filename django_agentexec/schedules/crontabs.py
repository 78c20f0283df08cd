"""Due times of crontabs, across changes between standard time and daylight saving time, and time zones by name.

Celery's crontab finds the matching times of the wall clock; this module converts them to moments. Celery is given
UTC, which has no missing or repeated hours: in a zone with time changes it omits the repeated hour and, asked within
that hour, returns a time in the past.

- A wall time that does not exist when the clock is put forward is due later by the length of the gap.
- A wall time that occurs twice is due the first time only, unless the crontab runs in all 24 hours: then it is due
  both times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..conf import conf
from ..exceptions import ScheduleError
from ..translation import gettext as _

HOURS_PER_DAY = 24
MAX_CHANGE = timedelta(hours=2)


class Rule(Protocol):
    """The used part of `celery.schedules.crontab`."""

    hour: set[int]
    tz: tzinfo
    nowfun: Callable[[], datetime]

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time from `nowfun()` to the first match after `last_run_at`."""


def next_in_zone(rule: Rule, moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment after `moment` at which the wall clock of `zone` matches `rule`, in UTC.

    Raises `ValueError` or `RuntimeError`, like Celery, if the rule never matches.
    """
    moment = moment.astimezone(UTC)
    local = moment.astimezone(zone)
    # Just after a gap, wall times inside the gap may still be due.
    put_forward = max(timedelta(), _offset(moment, zone) - _offset(moment - MAX_CHANGE, zone))
    wall = local.replace(tzinfo=UTC, fold=0) - put_forward
    first = next(due for match in _matches(rule, wall) if (due := _moment(match, zone)) > moment)
    if len(rule.hour) < HOURS_PER_DAY:
        return first
    put_back = max(timedelta(), _offset(moment, zone) - _offset(first, zone))
    if not (put_back or local.fold):
        return first
    # Terminates at `first` at the latest.
    return next(due for match in _matches(rule, wall - put_back) for due in _both_moments(match, zone) if due > moment)


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone by its name, such as "Europe/Berlin". Raises `ScheduleError`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(
            _("Time zone %(name)r does not exist. Use a name such as 'Europe/Berlin'.") % {"name": name}
        ) from error


def default_zone() -> ZoneInfo:
    """Return the default time zone of schedules, `SCHEDULER_TIMEZONE`. Raises `ScheduleError`."""
    return zone_named(conf.SCHEDULER_TIMEZONE)


def _matches(rule: Rule, wall: datetime) -> Iterator[datetime]:
    """Yield the matching wall times after `wall`, with UTC as their nominal time zone."""
    rule.tz = UTC
    while True:
        rule.nowfun = partial(_same, wall)
        step = rule.remaining_estimate(wall)
        if step <= timedelta():
            raise RuntimeError(f"no time after {wall:%Y-%m-%d %H:%M} was found")
        wall += step
        yield wall


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment at which the clocks of `zone` show `wall`; in a gap, use the offset before it."""
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def _both_moments(wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    first, second = _moment(wall, zone), wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    yield first
    if second > first:  # in a gap it is earlier and does not exist
        yield second


def _same(moment: datetime) -> datetime:
    return moment


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
