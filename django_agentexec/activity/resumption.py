"""The resumption of activities that wait for a condition, such as a budget: when it is due, or by a call of `resume`.

Both are safe in any number of processes: the second of two finds an activity that is not suspended any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from ..dispatch.push import push_on_commit
from ..models import CONDITIONS, Activity, ActivityQuerySet, Status
from .store import apply, database
from .suspension import Resume

BATCH = 500  # activities that are resumed together


def resume(agent_ids: Sequence[UUID]) -> int:
    """Queue suspended activities again that wait for a condition; return their number.

    Activities that wait for something else, or whose rows are locked by another transaction, are skipped. The caller
    repeats it, as the services of a pool do.
    """
    resumed = 0
    for start in range(0, len(agent_ids), BATCH):
        resumed += _resume(agent_ids[start : start + BATCH])
    return resumed


def resume_due() -> int:
    """Resume the activities, up to `BATCH`, whose condition has ended by now; return the number of due activities."""
    due = _waiting().filter(run_after__lte=timezone.now()).order_by("run_after")
    agent_ids = list(due.values_list("agent_id", flat=True)[:BATCH])
    if agent_ids:
        _resume(agent_ids)
    return len(agent_ids)


def next_due() -> datetime | None:
    """Return the time at which the next condition ends, or None."""
    timed = _waiting().filter(run_after__isnull=False).order_by("run_after")
    return timed.values_list("run_after", flat=True).first()


def _waiting() -> ActivityQuerySet:
    return Activity.objects.using(database()).suspended().filter(waiting_for__in=CONDITIONS)


def _resume(agent_ids: Sequence[UUID]) -> int:
    with transaction.atomic(using=database()):
        # Read again: meanwhile it may have ended, or wait for something else.
        waiting = _waiting().filter(agent_id__in=agent_ids).values_list("agent_id", flat=True)
        operations = [Resume(agent_id=agent_id) for agent_id in waiting]
        if not operations:
            return 0
        applied = apply(operations, skip_locked=True)
        resumed = [row for row in applied if isinstance(row, Activity) and row.status == Status.QUEUED]
        # As for parents: the worker that suspended it may not have acknowledged yet, and it keeps its place.
        push_on_commit(resumed, requeue_running=True, by_creation_time=True)
    return len(resumed)
