"""Due times of the four schedule models of django-celery-beat.

All moments in this module are aware and in UTC; `as_utc` and `as_stored` convert from and to the values of rows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias, overload
from zoneinfo import ZoneInfo

from celery.exceptions import ImproperlyConfigured as CeleryImproperlyConfigured
from django.conf import settings
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, SolarSchedule

from ..exceptions import ScheduleError
from ..translation import gettext as _
from ..validation import is_storable_moment
from .crontabs import next_in_zone, zone_named

Timer: TypeAlias = CrontabSchedule | IntervalSchedule | ClockedSchedule | SolarSchedule

TIMERS = ("crontab", "interval", "clocked", "solar")
"""The foreign keys of `AgentSchedule` to these models; exactly one of them is set."""
MIN_INTERVAL = timedelta(seconds=1)
RESOLUTION = timedelta(microseconds=1)


def next_due(timer: Timer, moment: datetime, *, anchor: datetime, zone: ZoneInfo | None = None) -> datetime | None:
    """Return the first due time after `moment`, or None if no due time is left.

    `anchor` is the due time from which intervals are counted. `zone` replaces the time zone of a crontab. Raises
    `ScheduleError`, with the cause, for a timer that is never due.
    """
    try:
        due = _next(timer, moment, anchor, zone)
        return due if due is None else as_utc(due)
    except CeleryImproperlyConfigured as error:
        raise ScheduleError(_("Solar schedules need the package ephem: pip install ephem.")) from error
    except ScheduleError:
        raise
    except Exception as error:  # Celery's parser raises various exceptions
        raise ScheduleError(
            _("%(timer)s is never due: %(error)s") % {"timer": timer, "error": " ".join(str(error).split())}
        ) from error


def _next(timer: Timer, moment: datetime, anchor: datetime, zone: ZoneInfo | None) -> datetime | None:
    if isinstance(timer, CrontabSchedule):
        return next_in_zone(timer.schedule, moment, zone or zone_of(timer))
    if isinstance(timer, IntervalSchedule):
        return _next_of_interval(_every(timer), moment, anchor)
    if isinstance(timer, ClockedSchedule):
        clocked = as_utc(timer.clocked_time)
        return clocked if clocked > moment else None
    return _next_of_solar(timer, moment)


def describe(timer: Timer, zone: ZoneInfo | None) -> str:
    """Return a text that changes whenever the due times of the timer change."""
    if isinstance(timer, CrontabSchedule):
        fields = (timer.minute, timer.hour, timer.day_of_month, timer.month_of_year, timer.day_of_week)
        return f"crontab {' '.join(fields)} {zone or timer.timezone}"
    if isinstance(timer, IntervalSchedule):
        return f"interval {timer.every} {timer.period}"
    if isinstance(timer, ClockedSchedule):
        return f"clocked {as_utc(timer.clocked_time).isoformat()}"
    return f"solar {timer.event} {float(timer.latitude)} {float(timer.longitude)}"


def zone_of(timer: CrontabSchedule) -> ZoneInfo:
    """Return the time zone of a crontab."""
    return zone_named(str(timer.timezone))


def as_utc(moment: datetime) -> datetime:
    """Return a time of a row (naive and local if USE_TZ is off) in UTC.

    Raises `ScheduleError` at the limits of the calendar, where some time zones have no date.
    """
    if not is_storable_moment(moment):
        raise ScheduleError(
            _("%(moment)s is too close to the limits of the calendar; use years from 2 to 9998") % {"moment": moment}
        )
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment, timezone.get_default_timezone())
    return moment.astimezone(UTC)


@overload
def as_stored(moment: datetime) -> datetime: ...
@overload
def as_stored(moment: None) -> None: ...
@overload
def as_stored(moment: datetime | None) -> datetime | None: ...
def as_stored(moment: datetime | None) -> datetime | None:
    """Return a moment in the form in which rows store it."""
    if moment is None or settings.USE_TZ:
        return moment
    return timezone.make_naive(moment, timezone.get_default_timezone())


def _every(timer: IntervalSchedule) -> timedelta:
    every: timedelta = timer.schedule.run_every
    if every < MIN_INTERVAL:
        raise ScheduleError(
            _("An interval of %(seconds)s s is too short; the minimum is 1 second.")
            % {"seconds": f"{every.total_seconds():g}"}
        )
    return every


def _next_of_interval(every: timedelta, moment: datetime, anchor: datetime) -> datetime:
    """Count elapsed time from the anchor, so that late runs and clock changes do not shift due times."""
    return anchor + every * max(0, (moment - anchor) // every + 1)


def _next_of_solar(timer: SolarSchedule, moment: datetime) -> datetime:
    rule = timer.schedule
    rule.nowfun = lambda: moment
    due: datetime = moment + rule.remaining_estimate(moment)
    return due
