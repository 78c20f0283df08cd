"""`AgentSchedule`, the due times of a task, and `ScheduleRun`, the outcome of each due time.

Due times come from the models of django-celery-beat. A schedule is not a `PeriodicTask`, so a Celery beat of the same
project does not run it.
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
from django.utils.translation import gettext_lazy as _

from ..exceptions import ScheduleError
from ..models import Activity, Priority
from .crontabs import default_zone, zone_named
from .timing import RESOLUTION, TIMERS, Timer, as_stored, as_utc, describe, next_due, zone_of
from .validation import validate_schedule

PLANNED = ("next_run_at", "timing")
# Written at each run; a concurrent edit of the schedule must not overwrite them.
SCHEDULER_FIELDS = (*PLANNED, "last_run_at", "total_run_count", "last_error")


class Origin(models.TextChoices):
    """The place where a schedule was created."""

    ADMIN = "admin", _("admin")
    CODE = "code", _("code")


class Misfire(models.TextChoices):
    """The handling of due times that were missed because no scheduler was running."""

    SKIP = "skip", _("skip them")
    CATCH_UP = "catch_up", _("run once for all of them")


class RunKind(models.TextChoices):
    """The reason why a run was started or skipped."""

    DUE = "due", _("due")
    CATCH_UP = "catch_up", _("missed, caught up")
    SKIPPED = "skipped", _("missed, skipped")
    MANUAL = "manual", _("by hand")


def _exactly_one_timer() -> Q:
    return reduce(or_, (Q(**{f"{name}__isnull": name != chosen for name in TIMERS}) for chosen in TIMERS))


class AgentSchedule(models.Model):
    """A task that is enqueued with the same context at each due time."""

    name = models.CharField(_("name"), max_length=200, unique=True)
    task = models.CharField(_("task"), max_length=200, help_text=_("Name of a registered task."))
    context = models.JSONField(_("context"), default=dict, blank=True, help_text=_("The task's input, as JSON."))
    metadata = models.JSONField(
        _("metadata"), default=dict, blank=True, help_text=_("Metadata of each activity, a JSON object.")
    )
    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Priority.choices, null=True, blank=True, help_text=_("Empty: the task's priority.")
    )
    queue = models.CharField(
        _("queue"), max_length=100, blank=True, default="", help_text=_("Empty: the task's queue.")
    )

    crontab = models.ForeignKey(
        "django_celery_beat.CrontabSchedule", models.PROTECT, null=True, blank=True, verbose_name=_("crontab")
    )
    interval = models.ForeignKey(
        "django_celery_beat.IntervalSchedule", models.PROTECT, null=True, blank=True, verbose_name=_("interval")
    )
    clocked = models.ForeignKey(
        "django_celery_beat.ClockedSchedule", models.PROTECT, null=True, blank=True, verbose_name=_("clocked")
    )
    solar = models.ForeignKey(
        "django_celery_beat.SolarSchedule", models.PROTECT, null=True, blank=True, verbose_name=_("solar")
    )
    timezone = models.CharField(
        _("time zone"),
        max_length=63,
        blank=True,
        default="",
        help_text=_("Applies to the crontab. Empty: the time zone of the crontab."),
    )
    start_at = models.DateTimeField(
        _("start"), null=True, blank=True, help_text=_("Not due before this time. Intervals are counted from it.")
    )
    expires_at = models.DateTimeField(_("expiry"), null=True, blank=True, help_text=_("Not due at or after this time."))
    repeat = models.PositiveIntegerField(
        _("repeat limit"),
        null=True,
        blank=True,
        help_text=_("Total number of runs, without runs by hand. Empty: no limit."),
    )
    misfire = models.CharField(_("missed runs"), max_length=10, choices=Misfire.choices, default=Misfire.SKIP)
    enabled = models.BooleanField(_("enabled"), default=True)
    description = models.TextField(_("description"), blank=True, default="")

    origin = models.CharField(_("origin"), max_length=10, choices=Origin.choices, default=Origin.ADMIN, editable=False)
    digest = models.CharField(
        max_length=64,
        blank=True,
        default="",
        editable=False,
        help_text="Digest of the definition in code that was applied last; empty: the schedule is not in the code.",
    )

    next_run_at = models.DateTimeField(_("next run"), null=True, blank=True, editable=False)
    timing = models.CharField(
        max_length=64, blank=True, default="", editable=False, help_text="Digest of the inputs of `next_run_at`."
    )
    last_run_at = models.DateTimeField(_("last run"), null=True, blank=True, editable=False)
    total_run_count = models.PositiveIntegerField(_("runs"), default=0, editable=False)
    last_error = models.TextField(_("last error"), blank=True, default="", editable=False)

    _is_planned = False  # True between `plan` and the next save

    class Meta:
        db_table = "agentexec_schedule"
        verbose_name = _("agent schedule")
        verbose_name_plural = _("agent schedules")
        ordering = ["name"]
        permissions = [("run_agentschedule", "Can run agent schedule now")]
        constraints = [
            models.CheckConstraint(
                condition=_exactly_one_timer(),
                name="agentexec_schedule_one_timer",
                violation_error_message=_("Choose when it is due: one of crontab, interval, clocked, solar."),
            )
        ]
        indexes = [
            models.Index(fields=["next_run_at"], condition=Q(next_run_at__isnull=False), name="agentexec_schedule_next")
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: object, update_fields: Iterable[str] | None = None, **options: object) -> None:
        """Save the schedule and plan its next run if the timing has changed.

        Columns that the scheduler writes are only saved if `update_fields` names them, because the scheduler may have
        run the schedule since this object was loaded. Raises `ScheduleError` for a timer that is never due.
        """
        if update_fields is None:
            if self.timing != self.fingerprint():
                self.plan(timezone.now())
            if not self._state.adding:
                skipped = SCHEDULER_FIELDS[len(PLANNED) :] if self._is_planned else SCHEDULER_FIELDS
                names = (field.name for field in self._meta.concrete_fields if not field.primary_key)
                update_fields = [name for name in names if name not in skipped]
        super().save(*args, update_fields=update_fields, **options)  # type: ignore[arg-type]  # passed on unchanged
        self._is_planned = False

    def clean(self) -> None:
        """Raise `ValidationError` by field for everything that would fail at a due time."""
        validate_schedule(self)

    @property
    def timer(self) -> Timer:
        """The timer that is set, one of the four kinds. Raises `ScheduleError` if none is set."""
        for name in TIMERS:
            timer: Timer | None = getattr(self, name)
            if timer is not None:
                return timer
        raise ScheduleError(
            _("Schedule %(name)r is never due. Set one of %(timers)s.")
            % {"name": self.name, "timers": ", ".join(TIMERS)}
        )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the due times, also for display. Raises `ScheduleError` for an unknown time zone."""
        if self.timezone:
            return zone_named(self.timezone)
        return zone_of(self.crontab) if self.crontab else default_zone()

    def fingerprint(self) -> str:
        """Return a digest of everything that determines the due times; empty if the schedule is disabled."""
        if not self.enabled:
            return ""
        timing = describe(self.timer, zone_named(self.timezone) if self.timezone else None)
        limits = (self.start_at and as_utc(self.start_at), self.expires_at and as_utc(self.expires_at), self.repeat)
        return hashlib.sha256(f"{timing} {limits}".encode()).hexdigest()

    def plan(self, now: datetime) -> None:
        """Set the next run to the first due time after `now`, ignoring missed due times. Raises `ScheduleError`."""
        self._is_planned = True
        self.timing = self.fingerprint()
        self.next_run_at = as_stored(self.due_after(as_utc(now))) if self.enabled else None

    def due_after(self, moment: datetime, *, anchor: datetime | None = None) -> datetime | None:
        """Return the first due time after `moment` (both aware), or None if no due time is left.

        `anchor` is the due time from which an interval is counted; by default the start, otherwise `moment`. Raises
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
        """Return the next due times in the time zone of the schedule. Raises `ScheduleError`."""
        if self.repeat is not None:
            count = min(count, self.repeat - self.total_run_count)
        times: list[datetime] = []
        due = as_utc(self.next_run_at) if self.enabled and self.next_run_at else None
        while due and len(times) < count:
            times.append(due.astimezone(self.zone))
            due = self.due_after(due, anchor=due)
        return times


class ScheduleRun(models.Model):
    """The outcome of one due time. A unique constraint prevents two pools from running the same due time."""

    schedule = models.ForeignKey(AgentSchedule, models.CASCADE, related_name="runs", verbose_name=_("agent schedule"))
    due_at = models.DateTimeField(_("due at"))
    kind = models.CharField(_("kind"), max_length=10, choices=RunKind.choices, default=RunKind.DUE)
    activity = models.ForeignKey(
        Activity, models.SET_NULL, null=True, related_name="schedule_runs", verbose_name=_("activity")
    )
    error = models.TextField(_("error"), blank=True, default="", help_text=_("Why the task could not be enqueued."))
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_schedule_run"
        verbose_name = _("schedule run")
        verbose_name_plural = _("schedule runs")
        default_permissions = ("view",)
        ordering = ["-due_at"]
        constraints = [models.UniqueConstraint(fields=["schedule", "due_at"], name="agentexec_schedule_run_once")]

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.due_at:%Y-%m-%d %H:%M:%S} ({self.kind})"
