"""Shorthands of the schedules' tests: schedules with a known plan, and a scheduler whose time stands still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django_celery_beat.models import CrontabSchedule, IntervalSchedule

from django_agentexec.models import Activity
from django_agentexec.schedules.models import AgentSchedule, ScheduleRun
from django_agentexec.schedules.scheduler import Scheduler

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def interval(every: int = 10, period: str = "seconds") -> IntervalSchedule:
    return IntervalSchedule.objects.create(every=every, period=period)


def crontab(minute: str = "*", hour: str = "*", timezone: str = "UTC") -> CrontabSchedule:
    return CrontabSchedule.objects.create(minute=minute, hour=hour, timezone=timezone)


def make_schedule(now: datetime = NOON, **fields: Any) -> AgentSchedule:
    """Return a saved schedule, planned at `now`: every 10 seconds unless `fields` say otherwise."""
    if not {"crontab", "interval", "clocked", "solar"} & set(fields):
        fields["interval"] = interval()
    values = {"name": "s", "task": "shout", "context": {"text": "hi"}, **fields}
    schedule = AgentSchedule(**values)
    schedule.plan(now)
    schedule.save()
    return schedule


def scheduler(clock: Clock, holder: str = "one", **options: Any) -> Scheduler:
    """Return a scheduler that has taken over the code's schedules already."""
    made = Scheduler(holder, clock, **options)
    made._has_synced_code = True
    return made


def runs(schedule: AgentSchedule) -> list[tuple[str, str]]:
    """Return what became of each due time: time and kind, in order."""
    found = ScheduleRun.objects.filter(schedule=schedule).order_by("due_at")
    return [(run.due_at.strftime("%H:%M:%S"), run.kind) for run in found]


def started() -> list[dict[str, Any]]:
    """Return the contexts of all activities, in order."""
    return list(Activity.objects.order_by("agent_id").values_list("context", flat=True))
