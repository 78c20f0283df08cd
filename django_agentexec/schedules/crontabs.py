"""When a crontab is due next, also across changes of the clock. Called by `timing`.

Celery's crontab finds the matching times of the wall clock; here they become moments. It counts in UTC, where
no hour is missing or repeated: in a zone with such changes its own answer leaves out the repeated hour and, asked
inside of it, lies in the past.

- A time that the change to summer time leaves out is due as much later as the clock is put forward.
- A time that comes twice is due the first time only, unless the crontab runs in all 24 hours: then it goes on
  through both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Protocol
from zoneinfo import ZoneInfo

HOURS_OF_A_DAY = 24
MAX_CHANGE = timedelta(hours=2)


class Rule(Protocol):
    """What is used of `celery.schedules.crontab`."""

    hour: set[int]
    tz: tzinfo
    nowfun: Callable[[], datetime]

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time from `nowfun()` to the first match after `last_run_at`."""


def next_in_zone(rule: Rule, moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment after `moment` at which the clocks of `zone` match `rule`, in UTC.

    Raises `ValueError` or `RuntimeError`, as Celery does, if there is none.
    """
    moment = moment.astimezone(UTC)
    local = moment.astimezone(zone)
    # Just after a gap, times that it left out may still be due.
    put_forward = max(timedelta(), _offset(moment, zone) - _offset(moment - MAX_CHANGE, zone))
    wall = local.replace(tzinfo=UTC, fold=0) - put_forward
    first = next(due for match in _matches(rule, wall) if (due := _moment(match, zone)) > moment)
    if len(rule.hour) < HOURS_OF_A_DAY:
        return first
    put_back = max(timedelta(), _offset(moment, zone) - _offset(first, zone))
    if not (put_back or local.fold):
        return first
    # Ends with `first` at the latest.
    return next(due for match in _matches(rule, wall - put_back) for due in _both_moments(match, zone) if due > moment)


def _matches(rule: Rule, wall: datetime) -> Iterator[datetime]:
    """Yield the matching times of the wall clock after `wall`, all of them written as if they were in UTC."""
    rule.tz = UTC
    while True:
        rule.nowfun = partial(_same, wall)
        step = rule.remaining_estimate(wall)
        if step <= timedelta():
            raise RuntimeError(f"no time after {wall:%Y-%m-%d %H:%M} was found")
        wall += step
        yield wall


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return when the clocks of `zone` show `wall` for the first time; a time left out counts from before the gap."""
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def _both_moments(wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    first, second = _moment(wall, zone), wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    yield first
    if second > first:  # in a gap it is earlier, and no time at all
        yield second


def _same(moment: datetime) -> datetime:
    return moment


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
