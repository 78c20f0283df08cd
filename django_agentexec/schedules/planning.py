"""Keeps next runs true to what rows say now. Called by the scheduler that leads, at each interval."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from django.db import DataError, InterfaceError, OperationalError, transaction
from django.db.models import QuerySet

from ..activity.store import database
from ..exceptions import ScheduleError
from .models import KEPT_BY_SCHEDULER, TIMERS, AgentSchedule

logger = logging.getLogger(__name__)


def refresh(now: datetime) -> None:
    """Plan anew what was edited past `AgentSchedule.save`: a shared crontab, a bulk update, SQL.

    Two queries, and two for each schedule that has changed.
    """
    rows = AgentSchedule.objects.using(database())
    rows.filter(enabled=False, next_run_at__isnull=False).update(next_run_at=None, timing="")
    enabled = rows.filter(enabled=True).select_related(*TIMERS).defer("context", "metadata")
    try:
        schedules = list(enabled)
    except (DataError, ValueError, OverflowError):  # PostgreSQL takes dates that Python cannot read
        schedules = list(_readable(enabled))
    for schedule in schedules:
        try:
            if _is_outdated(schedule):
                replan(schedule.pk, now)
        except (OperationalError, InterfaceError):
            raise  # the database is unavailable for all of them
        except Exception:  # of one schedule, which must not stop the others
            logger.exception("Schedule %s cannot be planned.", schedule)


def _readable(schedules: QuerySet[AgentSchedule]) -> Iterator[AgentSchedule]:
    for pk in schedules.values_list("pk", flat=True):
        try:
            yield from schedules.filter(pk=pk)
        except (DataError, ValueError, OverflowError) as error:
            logger.error("Schedule %s cannot be read, and does not run: %s", pk, error)


def replan(schedule_id: int, now: datetime) -> None:
    """Set a schedule's next run from now on; what is wrong with it is noted on it."""
    with transaction.atomic(using=database()):
        schedule = AgentSchedule.objects.using(database()).select_for_update().filter(pk=schedule_id).first()
        if schedule is None or not schedule.enabled:
            return
        before = [getattr(schedule, name) for name in KEPT_BY_SCHEDULER]
        try:
            schedule.plan(now)
            schedule.last_error = "" if schedule.next_run_at else schedule.last_error
        except ScheduleError as error:
            schedule.next_run_at, schedule.last_error = None, str(error)
        if before != [getattr(schedule, name) for name in KEPT_BY_SCHEDULER]:
            logger.info("Schedule %s: next run %s. %s", schedule, schedule.next_run_at, schedule.last_error)
            schedule.save(update_fields=KEPT_BY_SCHEDULER)


def _is_outdated(schedule: AgentSchedule) -> bool:
    if schedule.next_run_at is None and schedule.last_error:
        return True  # what was missing, such as a package, may be there now
    try:
        return schedule.timing != schedule.fingerprint()
    except ScheduleError:
        return True
