"""Planning of next runs after edits that bypass `AgentSchedule.save`. Called periodically by the leading scheduler."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from django.db import DataError, InterfaceError, OperationalError, transaction
from django.db.models import QuerySet

from ..activity.store import database
from ..exceptions import ScheduleError
from .models import SCHEDULER_FIELDS, AgentSchedule
from .timing import TIMERS

logger = logging.getLogger(__name__)


def refresh(now: datetime) -> None:
    """Plan schedules again whose timing changed without `AgentSchedule.save`: by a shared crontab, bulk update or SQL.

    Makes two queries, and two more per changed schedule.
    """
    rows = AgentSchedule.objects.using(database())
    rows.filter(enabled=False, next_run_at__isnull=False).update(next_run_at=None, timing="")
    enabled = rows.filter(enabled=True).select_related(*TIMERS).defer("context", "metadata")
    try:
        schedules = list(enabled)
    except (DataError, ValueError, OverflowError):  # PostgreSQL stores dates that Python cannot represent
        schedules = list(_readable(enabled))
    for schedule in schedules:
        try:
            if _is_outdated(schedule):
                replan(schedule.pk, now)
        except (OperationalError, InterfaceError):
            raise  # the database is unavailable for all schedules
        except Exception:  # an error of one schedule must not stop the others
            logger.exception("Schedule %s cannot be planned.", schedule)


def _readable(schedules: QuerySet[AgentSchedule]) -> Iterator[AgentSchedule]:
    for pk in schedules.values_list("pk", flat=True):
        try:
            yield from schedules.filter(pk=pk)
        except (DataError, ValueError, OverflowError) as error:
            logger.error("Schedule %s cannot be read and does not run: %s", pk, error)


def replan(schedule_id: int, now: datetime) -> None:
    """Plan the next run of a schedule from now on. Stores an error in `last_error`."""
    with transaction.atomic(using=database()):
        schedule = AgentSchedule.objects.using(database()).select_for_update().filter(pk=schedule_id).first()
        if schedule is None or not schedule.enabled:
            return
        before = [getattr(schedule, name) for name in SCHEDULER_FIELDS]
        try:
            schedule.plan(now)
            schedule.last_error = "" if schedule.next_run_at else schedule.last_error
        except ScheduleError as error:
            schedule.next_run_at, schedule.last_error = None, str(error)
        if before != [getattr(schedule, name) for name in SCHEDULER_FIELDS]:
            logger.info("Schedule %s: next run %s. %s", schedule, schedule.next_run_at, schedule.last_error)
            schedule.save(update_fields=SCHEDULER_FIELDS)


def _is_outdated(schedule: AgentSchedule) -> bool:
    if schedule.next_run_at is None and schedule.last_error:
        return True  # the cause, such as a missing package, may be resolved
    try:
        return schedule.timing != schedule.fingerprint()
    except ScheduleError:
        return True
