"""AgentSchedule and ScheduleRun: when a task is due, and what became of each due time.

The due times are those of django-celery-beat's models, but a schedule is no `PeriodicTask`: a Celery beat in the
same project does not know it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from functools import reduce
from operator import or_
from zoneinfo import ZoneInfo

from django.db import models
from django.db.models import Q
from django.utils import timezone

from ..exceptions import ScheduleError
from ..models import Activity, Priority
from .timing import RESOLUTION, Timer, as_stored, as_utc, default_zone, describe, next_due, zone_named, zone_of

TIMERS = ("crontab", "interval", "clocked", "solar")
PLANNED = ("next_run_at", "timing")
# Written at each run, by `firing`: whoever edits a schedule meanwhile must not write them back.
KEPT_BY_SCHEDULER = (*PLANNED, "last_run_at", "total_run_count", "last_error")


class Origin(models.TextChoices):
    """Who made a schedule."""

    ADMIN = "admin", "admin"
    CODE = "code", "code"


class Misfire(models.TextChoices):
    """What becomes of due times that were missed, because no scheduler ran."""

    SKIP = "skip", "skip them"
    CATCH_UP = "catch_up", "run once for all of them"


class RunKind(models.TextChoices):
    """Why a run was, or was not, started."""

    DUE = "due", "due"
    CATCH_UP = "catch_up", "missed, caught up"
    SKIPPED = "skipped", "missed, skipped"
    MANUAL = "manual", "by hand"


def _exactly_one_timer() -> Q:
    return reduce(or_, (Q(**{f"{name}__isnull": name != chosen for name in TIMERS}) for chosen in TIMERS))


class AgentSchedule(models.Model):
    """A task that is enqueued with the same context at each due time."""

    name = models.CharField(max_length=200, unique=True)
    task = models.CharField(max_length=200, help_text="Name of a registered task.")
    context = models.JSONField(default=dict, blank=True, help_text="The task's input, as JSON.")
    metadata = models.JSONField(default=dict, blank=True, help_text="Metadata of each activity, a JSON object.")
    priority = models.PositiveSmallIntegerField(
        choices=Priority.choices, null=True, blank=True, help_text="Empty: the task's own."
    )
    queue = models.CharField(max_length=100, blank=True, default="", help_text="Empty: the task's own.")

    crontab = models.ForeignKey("django_celery_beat.CrontabSchedule", models.PROTECT, null=True, blank=True)
    interval = models.ForeignKey("django_celery_beat.IntervalSchedule", models.PROTECT, null=True, blank=True)
    clocked = models.ForeignKey("django_celery_beat.ClockedSchedule", models.PROTECT, null=True, blank=True)
    solar = models.ForeignKey("django_celery_beat.SolarSchedule", models.PROTECT, null=True, blank=True)
    timezone = models.CharField(
        "time zone", max_length=63, blank=True, default="", help_text="Of the crontab. Empty: the crontab's own."
    )
    start_at = models.DateTimeField(
        "start", null=True, blank=True, help_text="Not due before. Intervals are counted from here."
    )
    expires_at = models.DateTimeField("expiry", null=True, blank=True, help_text="Not due from this time on.")
    repeat = models.PositiveIntegerField(
        "repeat limit", null=True, blank=True, help_text="Runs in all, those by hand apart. Empty: no limit."
    )
    misfire = models.CharField("missed runs", max_length=10, choices=Misfire.choices, default=Misfire.SKIP)
    enabled = models.BooleanField(default=True)
    description = models.TextField(blank=True, default="")

    origin = models.CharField(max_length=10, choices=Origin.choices, default=Origin.ADMIN, editable=False)
    digest = models.CharField(
        max_length=64, blank=True, default="", editable=False,
        help_text="Of the definition in the code that was taken over last; empty: it is not in the code.",
    )  # fmt: skip

    next_run_at = models.DateTimeField("next run", null=True, blank=True, editable=False)
    timing = models.CharField(
        max_length=64, blank=True, default="", editable=False, help_text="Digest of what `next_run_at` was made of."
    )
    last_run_at = models.DateTimeField("last run", null=True, blank=True, editable=False)
    total_run_count = models.PositiveIntegerField("runs", default=0, editable=False)
    last_error = models.TextField(blank=True, default="", editable=False)

    _is_planned = False  # and not saved yet

    class Meta:
        db_table = "agentexec_schedule"
        ordering = ["name"]
        permissions = [("run_agentschedule", "Can run agent schedule now")]
        constraints = [
            models.CheckConstraint(
                condition=_exactly_one_timer(),
                name="agentexec_schedule_one_timer",
                violation_error_message=f"Choose when it is due: one of {', '.join(TIMERS)}.",
            )
        ]
        indexes = [
            models.Index(fields=["next_run_at"], condition=Q(next_run_at__isnull=False), name="agentexec_schedule_next")
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: object, update_fields: Iterable[str] | None = None, **options: object) -> None:
        """Save, with a new next run if the timing has changed. Raises `ScheduleError` for a timer without due times.

        Unless `update_fields` names them, the columns that a scheduler keeps are left as the database has them:
        it may have run the schedule since this object was read.
        """
        if update_fields is None:
            if self.timing != self.fingerprint():
                self.plan(timezone.now())
            if not self._state.adding:
                kept = KEPT_BY_SCHEDULER[len(PLANNED) :] if self._is_planned else KEPT_BY_SCHEDULER
                names = (field.name for field in self._meta.concrete_fields if not field.primary_key)
                update_fields = [name for name in names if name not in kept]
        super().save(*args, update_fields=update_fields, **options)  # type: ignore[arg-type]  # passed on as they came
        self._is_planned = False

    def clean(self) -> None:
        """Raise `ValidationError` by field, for all that would fail when the schedule is due."""
        from .validation import check_schedule

        check_schedule(self)

    @property
    def timer(self) -> Timer:
        """The one of the four schedules that is set. Raises `ScheduleError` if there is none."""
        for name in TIMERS:
            timer: Timer | None = getattr(self, name)
            if timer is not None:
                return timer
        raise ScheduleError(f"Schedule {self.name!r} is never due: give it one of {', '.join(TIMERS)}.")

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which it is due, and shown. Raises `ScheduleError` for an unknown one."""
        if self.timezone:
            return zone_named(self.timezone)
        return zone_of(self.crontab) if self.crontab else default_zone()

    def fingerprint(self) -> str:
        """Return a digest of all that the due times depend on; empty while it is not enabled."""
        if not self.enabled:
            return ""
        timing = describe(self.timer, zone_named(self.timezone) if self.timezone else None)
        limits = (self.start_at and as_utc(self.start_at), self.expires_at and as_utc(self.expires_at), self.repeat)
        return hashlib.sha256(f"{timing} {limits}".encode()).hexdigest()

    def plan(self, now: datetime) -> None:
        """Set the next run to the first due time after `now`, whatever was missed. Raises `ScheduleError`."""
        self._is_planned = True
        self.timing = self.fingerprint()
        self.next_run_at = as_stored(self.due_after(as_utc(now))) if self.enabled else None

    def due_after(self, moment: datetime, *, anchor: datetime | None = None) -> datetime | None:
        """Return the first due time after `moment` (both aware), or None if there is none any more.

        `anchor` is a due time to count an interval from: the start unless given, or else `moment`. Raises
        `ScheduleError`.
        """
        if self.repeat is not None and self.total_run_count >= self.repeat:
            return None
        start = as_utc(self.start_at) if self.start_at else None
        if start:
            moment = max(moment, start - RESOLUTION)
        zone = self.zone if self.crontab else None
        due = next_due(self.timer, moment, anchor=anchor or start or moment, zone=zone)
        return None if due and self.expires_at and due >= as_utc(self.expires_at) else due

    def upcoming(self, count: int = 5) -> list[datetime]:
        """Return the next due times, in the schedule's zone. Raises `ScheduleError`."""
        if self.repeat is not None:
            count = min(count, self.repeat - self.total_run_count)
        times: list[datetime] = []
        due = as_utc(self.next_run_at) if self.enabled and self.next_run_at else None
        while due and len(times) < count:
            times.append(due.astimezone(self.zone))
            due = self.due_after(due, anchor=due)
        return times


class ScheduleRun(models.Model):
    """What became of one due time. There is at most one for each, so that no two pools can run it."""

    schedule = models.ForeignKey(AgentSchedule, models.CASCADE, related_name="runs")
    due_at = models.DateTimeField()
    kind = models.CharField(max_length=10, choices=RunKind.choices, default=RunKind.DUE)
    activity = models.ForeignKey(Activity, models.SET_NULL, null=True, related_name="schedule_runs")
    error = models.TextField(blank=True, default="", help_text="Why it could not be enqueued.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "agentexec_schedule_run"
        default_permissions = ("view",)
        ordering = ["-due_at"]
        constraints = [models.UniqueConstraint(fields=["schedule", "due_at"], name="agentexec_schedule_run_once")]

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.due_at:%Y-%m-%d %H:%M:%S} ({self.kind})"
