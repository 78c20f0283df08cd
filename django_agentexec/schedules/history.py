"""Keeps the history of runs short. Called by the scheduler that leads, now and then."""

from __future__ import annotations

from django.db.models import Count

from ..activity.store import database
from ..conf import conf
from .models import ScheduleRun


def prune() -> int:
    """Delete all but the latest `SCHEDULER_KEEP_RUNS` runs of each schedule; return how many. Activities stay.

    One query, and two for each schedule that has more.
    """
    keep, deleted = conf.SCHEDULER_KEEP_RUNS, 0
    runs = ScheduleRun.objects.using(database())
    for schedule_id in (
        runs.order_by().values("schedule_id").annotate(number=Count("pk")).filter(number__gt=keep)
    ).values_list("schedule_id", flat=True):
        own = runs.filter(schedule_id=schedule_id)
        oldest_kept = own.order_by("-due_at").values_list("due_at", flat=True)[keep - 1]
        deleted += own.filter(due_at__lt=oldest_kept).delete()[0]
    return deleted
