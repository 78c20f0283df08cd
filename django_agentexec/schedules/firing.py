"""Runs of schedules: each due time becomes one activity, regardless of the number of pools.

The run, the activity and the next due time are written in one transaction. A unique constraint on runs decides
between two schedulers.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import IntegrityError, InterfaceError, connections, transaction
from django.db.models import Count
from django.db.utils import DatabaseError
from django.utils import timezone

from ..activity.store import database
from ..conf import conf
from ..exceptions import AgentExecError, ScheduleError
from ..tasks import Run, enqueue, registry
from ..validation import one_line, storable_text
from .models import SCHEDULER_FIELDS, AgentSchedule, Misfire, RunKind, ScheduleRun
from .timing import RESOLUTION, as_stored, as_utc
from .validation import load_context

logger = logging.getLogger(__name__)


def fire(schedule_id: int, now: datetime) -> bool:
    """Run a due schedule, or record that it missed its due time. Return False if it is not due.

    Stores an error of the schedule in `last_error`. Raises `DatabaseError`, with nothing changed.
    """
    with transaction.atomic(using=database()):
        schedule = _locked(schedule_id)
        if schedule is None or not schedule.enabled or schedule.next_run_at is None:
            return False
        due = as_utc(schedule.next_run_at)
        if due > now:
            return False
        kind = _run_kind(schedule, due, now)
        if kind is RunKind.SKIPPED:
            _record(schedule, due, kind)
            logger.warning("Schedule %s missed its run of %s and skips it.", schedule, due)
        else:
            _start(schedule, due, kind, now)
        # Counted from the due time, not from now, so that due times do not drift.
        _advance(schedule, due, after=due if kind is RunKind.DUE else _grace_start(now))
        schedule.save(update_fields=SCHEDULER_FIELDS)
    return True


def run_now(schedule: AgentSchedule) -> Run:
    """Enqueue the task of a schedule by hand, independent of its due times and repeat limit.

    Raises `UnknownTask`, `InvalidContext` or `InvalidOption` before anything is written.
    """
    now = as_utc(timezone.now())
    with transaction.atomic(using=database()):
        handle = _enqueue(schedule)
        _record(schedule, now, RunKind.MANUAL, handle)
        schedule.last_run_at = as_stored(now)
        schedule.save(update_fields=["last_run_at"])
    return handle


def _locked(schedule_id: int) -> AgentSchedule | None:
    """Return the schedule with a lock, or None if another scheduler has locked it."""
    skip = connections[database()].features.has_select_for_update_skip_locked
    schedules = AgentSchedule.objects.using(database()).select_for_update(skip_locked=skip)
    return schedules.filter(pk=schedule_id).first()


def _run_kind(schedule: AgentSchedule, due: datetime, now: datetime) -> RunKind:
    if due > _grace_start(now):
        return RunKind.DUE
    expired = schedule.expires_at is not None and as_utc(schedule.expires_at) <= now
    if schedule.misfire != Misfire.CATCH_UP or expired:
        return RunKind.SKIPPED
    try:
        following = schedule.due_after(_grace_start(now), anchor=due)
    except ScheduleError:
        following = None
    # A due time within the grace period runs anyway and also makes up for the missed due times.
    return RunKind.SKIPPED if following and following <= now else RunKind.CATCH_UP


def _start(schedule: AgentSchedule, due: datetime, kind: RunKind, now: datetime) -> None:
    """Enqueue in a savepoint, so that neither an existing run nor an invalid schedule affects the transaction."""
    try:
        with transaction.atomic(using=database()):
            _record(schedule, due, kind, _enqueue(schedule))
    except IntegrityError:
        if not schedule.runs.filter(due_at=as_stored(due)).exists():
            raise
        logger.info("The run of schedule %s at %s already exists.", schedule, due)
    except (DatabaseError, InterfaceError):
        raise
    except Exception as error:  # validators of a context may raise anything
        schedule.last_error = _error_text(error)
        _record(schedule, due, kind, error=schedule.last_error)
        logger.error("Schedule %s cannot run: %s", schedule, schedule.last_error, exc_info=not _is_known(error))
    else:
        schedule.last_run_at = as_stored(now)
        schedule.total_run_count += 1
        schedule.last_error = ""


def _enqueue(schedule: AgentSchedule) -> Run:
    definition = registry.get(schedule.task)
    return enqueue(
        definition,
        load_context(definition, schedule.context),
        metadata=schedule.metadata,
        priority=schedule.priority,
        queue=schedule.queue or None,
    )


def _record(schedule: AgentSchedule, due: datetime, kind: RunKind, handle: Run | None = None, error: str = "") -> None:
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
        schedule.next_run_at, schedule.last_error = None, _error_text(error)
        logger.error("Schedule %s has no next run: %s", schedule, error)


def _grace_start(now: datetime) -> datetime:
    """Return the moment after which due times do not count as missed."""
    return now - timedelta(seconds=conf.SCHEDULER_MISFIRE_GRACE) - RESOLUTION


def _error_text(error: Exception) -> str:
    return storable_text(error if _is_known(error) else one_line(error))


def _is_known(error: Exception) -> bool:
    return isinstance(error, AgentExecError)


def prune_runs() -> int:
    """Delete all but the latest `SCHEDULER_KEEP_RUNS` runs of each schedule and return their number.

    Keeps the activities. Makes one query, and two more per schedule that has too many runs.
    """
    keep, deleted = conf.SCHEDULER_KEEP_RUNS, 0
    runs = ScheduleRun.objects.using(database())
    counts = runs.order_by().values("schedule_id").annotate(number=Count("pk"))
    for schedule_id in counts.filter(number__gt=keep).values_list("schedule_id", flat=True):
        runs_of_schedule = runs.filter(schedule_id=schedule_id)
        oldest_kept = runs_of_schedule.order_by("-due_at").values_list("due_at", flat=True)[keep - 1]
        deleted += runs_of_schedule.filter(due_at__lt=oldest_kept).delete()[0]
    return deleted
