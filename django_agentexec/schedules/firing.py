"""One due time of one schedule becomes one activity: once, whatever number of pools tries.

Called by the scheduler for what is due, and by the admin for a run by hand. The row of the run, the activity and
the next due time are written in one transaction; the run's uniqueness decides if two schedulers meet.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import IntegrityError, InterfaceError, connections, transaction
from django.db.utils import DatabaseError
from django.utils import timezone

from ..activity.store import database
from ..conf import conf
from ..exceptions import AgentExecError, ScheduleError
from ..tasks import ActivityHandle, enqueue, registry
from ..validation import one_line, storable_text
from .models import KEPT_BY_SCHEDULER, AgentSchedule, Misfire, RunKind, ScheduleRun
from .timing import RESOLUTION, as_stored, as_utc
from .validation import load_context

logger = logging.getLogger(__name__)


def fire(schedule_id: int, now: datetime) -> bool:
    """Do what is due: run the schedule, or note that it missed its time. False if there is nothing to do.

    What is wrong with the schedule is noted on it. Raises `DatabaseError` with nothing changed.
    """
    with transaction.atomic(using=database()):
        schedule = _locked(schedule_id)
        if schedule is None or not schedule.enabled or schedule.next_run_at is None:
            return False
        due = as_utc(schedule.next_run_at)
        if due > now:
            return False
        kind = _kind(schedule, due, now)
        if kind is RunKind.SKIPPED:
            _note(schedule, due, kind)
            logger.warning("Schedule %s missed its run of %s, and skips it.", schedule, due)
        else:
            _start(schedule, due, kind, now)
        # From the intended time, not from now: nothing drifts.
        _advance(schedule, due, after=due if kind is RunKind.DUE else _in_time(now))
        schedule.save(update_fields=KEPT_BY_SCHEDULER)
    return True


def run_now(schedule: AgentSchedule) -> ActivityHandle:
    """Enqueue a schedule's task by hand, besides its due times and its limit.

    Raises `UnknownTask`, `InvalidContext` or `InvalidOption`, with nothing written.
    """
    now = as_utc(timezone.now())
    with transaction.atomic(using=database()):
        handle = _enqueue(schedule)
        _note(schedule, now, RunKind.MANUAL, handle)
        schedule.last_run_at = as_stored(now)
        schedule.save(update_fields=["last_run_at"])
    return handle


def _locked(schedule_id: int) -> AgentSchedule | None:
    """Return the schedule, unless another scheduler is at it."""
    skip = connections[database()].features.has_select_for_update_skip_locked
    schedules = AgentSchedule.objects.using(database()).select_for_update(skip_locked=skip)
    return schedules.filter(pk=schedule_id).first()


def _kind(schedule: AgentSchedule, due: datetime, now: datetime) -> RunKind:
    if due > _in_time(now):
        return RunKind.DUE
    expired = schedule.expires_at is not None and as_utc(schedule.expires_at) <= now
    if schedule.misfire != Misfire.CATCH_UP or expired:
        return RunKind.SKIPPED
    try:
        following = schedule.due_after(_in_time(now), anchor=due)
    except ScheduleError:
        following = None
    # One that is due within the grace period runs anyway, and catches up for all.
    return RunKind.SKIPPED if following and following <= now else RunKind.CATCH_UP


def _start(schedule: AgentSchedule, due: datetime, kind: RunKind, now: datetime) -> None:
    """Enqueue, in a savepoint: neither a run that is there already nor a faulty schedule stops the others."""
    try:
        with transaction.atomic(using=database()):
            _note(schedule, due, kind, _enqueue(schedule))
    except IntegrityError:
        if not schedule.runs.filter(due_at=as_stored(due)).exists():
            raise
        logger.info("The run of schedule %s at %s was started already.", schedule, due)
    except (DatabaseError, InterfaceError):
        raise
    except Exception as error:  # a context's own validators may raise anything
        schedule.last_error = _described(error)
        _note(schedule, due, kind, error=schedule.last_error)
        logger.error("Schedule %s cannot run: %s", schedule, schedule.last_error, exc_info=not _is_ours(error))
    else:
        schedule.last_run_at = as_stored(now)
        schedule.total_run_count += 1
        schedule.last_error = ""


def _enqueue(schedule: AgentSchedule) -> ActivityHandle:
    definition = registry.get(schedule.task)
    return enqueue(
        definition,
        load_context(definition, schedule.context),
        metadata=schedule.metadata,
        priority=schedule.priority,
        queue=schedule.queue or None,
    )


def _note(
    schedule: AgentSchedule, due: datetime, kind: RunKind, handle: ActivityHandle | None = None, error: str = ""
) -> None:
    agent_id = handle.agent_id if handle else None
    run = ScheduleRun(schedule=schedule, due_at=as_stored(due), kind=kind, activity_id=agent_id, error=error)
    if handle:
        run.save(using=database(), force_insert=True)
    else:
        ScheduleRun.objects.using(database()).bulk_create([run], ignore_conflicts=True)


def _advance(schedule: AgentSchedule, due: datetime, *, after: datetime) -> None:
    try:
        schedule.next_run_at = as_stored(schedule.due_after(after, anchor=due))
    except ScheduleError as error:
        schedule.next_run_at, schedule.last_error = None, _described(error)
        logger.error("Schedule %s has no next run: %s", schedule, error)


def _in_time(now: datetime) -> datetime:
    """Return the moment after which due times are not missed yet."""
    return now - timedelta(seconds=conf.SCHEDULER_MISFIRE_GRACE) - RESOLUTION


def _described(error: Exception) -> str:
    return storable_text(error if _is_ours(error) else one_line(error))


def _is_ours(error: Exception) -> bool:
    return isinstance(error, AgentExecError)
