"""Activity and ActivityLog: the rows that are the truth about every run, and the questions one can ask.

Rows are read through these QuerySets by everyone, and written by `django_agentexec.activity` alone.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from .exceptions import InvalidOption
from .ids import uuid7
from .lookups import ActiveFirst, HasEntry, can_be_in_json


class Status(models.TextChoices):
    """The states of an activity; the values are the wire's."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    ERROR = "error"
    CANCELED = "canceled"


ACTIVE = (Status.QUEUED, Status.RUNNING)
FINISHED = (Status.COMPLETE, Status.ERROR, Status.CANCELED)


class Priority(models.IntegerChoices):
    """Who goes first: every HIGH before every NORMAL before every LOW; equals in order of arrival."""

    HIGH = 1
    NORMAL = 4
    LOW = 7


class ActivityQuerySet(models.QuerySet["Activity"]):
    """The questions one can ask about activities."""

    def active(self) -> ActivityQuerySet:
        """Return those that are queued or running."""
        return self.filter(status__in=ACTIVE)

    def finished(self) -> ActivityQuerySet:
        """Return those that are complete, in error or canceled."""
        return self.filter(status__in=FINISHED)

    def queued(self) -> ActivityQuerySet:
        """Return those that wait."""
        return self.filter(status=Status.QUEUED)

    def running(self) -> ActivityQuerySet:
        """Return those that a worker has started and not ended."""
        return self.filter(status=Status.RUNNING)

    def failed(self) -> ActivityQuerySet:
        """Return those that ended in error."""
        return self.filter(status=Status.ERROR)

    def of_type(self, agent_type: str) -> ActivityQuerySet:
        """Return the runs of the task of this name."""
        return self.filter(agent_type=agent_type)

    def due(self, now: datetime | None = None) -> ActivityQuerySet:
        """Return the queued ones whose time has come (at `now`, an aware datetime)."""
        return self.queued().filter(Q(run_after=None) | Q(run_after__lte=now or timezone.now()))

    def dispatched(self) -> ActivityQuerySet:
        """Return those that go through a queue, leaving out what the caller drives itself."""
        return self.exclude(queue="")

    def for_metadata(self, /, **metadata: str | int | float | bool | None) -> ActivityQuerySet:
        """Return those whose metadata holds every one of these values under its top-level key.

        Keys are taken literally, so they may come from outside. Raises `InvalidOption` for lists and
        dictionaries, which databases compare in different ways.
        """
        for key, value in metadata.items():
            if not isinstance(value, (str, int, float, type(None))):
                raise InvalidOption(
                    f"Metadata {key}={value!r}: only text, numbers, booleans and None can be asked for."
                )
        if not metadata:
            return self
        if not all(can_be_in_json(value) for entry in metadata.items() for value in entry):
            return self.none()
        if self._has_json_containment():
            return self.filter(metadata__contains=metadata)
        return self.filter(*(HasEntry("metadata", key, value) for key, value in metadata.items()))

    def active_first(self) -> ActivityQuerySet:
        """Return active ones before finished ones, the newest first in each part."""
        return self.order_by(ActiveFirst("status").asc(), F("agent_id").desc())

    def bounded_count(self, limit: int) -> int:
        """Return how many there are, or `limit` if there are more: a count that never reads a million rows."""
        return self.order_by()[:limit].count()

    def _has_json_containment(self) -> bool:
        from django.db import connections

        return bool(connections[self.db].features.supports_json_field_contains)


_ACTIVE_FIRST = Case(
    When(status__in=[Status.QUEUED, Status.RUNNING], then=Value(0)),
    default=Value(1),
    output_field=models.SmallIntegerField(),
)


class Activity(models.Model):
    """One run of a task: what it is, and where it stands now.

    The row carries all that is needed to run it again, and its present state, so that neither a list
    nor a worker has to look at the log.
    """

    agent_id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    agent_type = models.CharField(max_length=200, help_text="Name of the task.")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    percentage = models.PositiveSmallIntegerField(default=0, help_text="Progress, 0 to 100.")
    latest_log_message = models.TextField(blank=True, default="")
    latest_log_timestamp = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True, help_text="First start of the latest life.")
    finished_at = models.DateTimeField(null=True, blank=True)

    context = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    result = models.JSONField(null=True, blank=True)
    usage = models.JSONField(default=dict, blank=True, help_text="Tokens and requests, summed over all attempts.")
    error = models.TextField(blank=True, default="", help_text="Last error, one line.")
    traceback = models.TextField(blank=True, default="")

    queue = models.CharField(max_length=100, blank=True, help_text="Empty: not queued, driven by its creator.")
    parent = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="children", db_index=False,
        help_text="The activity whose handler enqueued this one.",
    )  # fmt: skip
    lock_key = models.CharField(max_length=500, blank=True, default="", help_text="Evaluated; empty is no lock.")
    priority = models.PositiveSmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    run_after = models.DateTimeField(null=True, blank=True, help_text="Due time; empty is at once.")
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)

    attempt = models.PositiveIntegerField(default=0, help_text="Number of the latest attempt.")
    retries = models.PositiveIntegerField(default=0, help_text="Automatic retries used since it was (re)queued.")
    max_retries = models.PositiveIntegerField(default=0)
    crashes = models.PositiveIntegerField(default=0, help_text="Processes that died with this activity.")
    fence = models.BigIntegerField(default=0, help_text="Number of the latest claim; only grows.")
    worker = models.CharField(max_length=200, blank=True, default="", help_text="Who runs it, or ran it last.")

    waited: float | None = None
    """Seconds between its turn and its start; not stored, known to receivers of the change that starts it."""

    objects = ActivityQuerySet.as_manager()

    class Meta:
        db_table = "agentexec_activity"
        verbose_name_plural = "activities"
        permissions = [
            ("cancel_activity", "Can cancel activity"),
            ("retry_activity", "Can retry activity"),
            ("enqueue_task", "Can enqueue tasks from outside"),
        ]
        default_permissions = ("view", "delete")
        constraints = [
            models.UniqueConstraint(fields=["agent_type", "idempotency_key"], name="agentexec_idempotency"),
            models.CheckConstraint(condition=Q(percentage__lte=100), name="agentexec_percentage"),
        ]
        indexes = [
            models.Index(_ACTIVE_FIRST.asc(), F("agent_id").desc(), name="agentexec_active_first"),
            models.Index(fields=["status", "agent_id"], name="agentexec_status"),
            models.Index(fields=["agent_type", "agent_id"], name="agentexec_type"),
            # Few have a parent; the others cost this index nothing.
            models.Index(fields=["parent"], condition=Q(parent__isnull=False), name="agentexec_parent"),
        ]
        # On PostgreSQL the first migration also makes a GIN index on `metadata`.

    def __str__(self) -> str:
        return f"{self.agent_type} {self.agent_id} ({self.status})"

    @property
    def is_active(self) -> bool:
        """Whether it is queued or running."""
        return self.status in ACTIVE

    @property
    def partition(self) -> str:
        """The line it stands in: its lock key's, or one of its own."""
        return f"k:{self.lock_key}" if self.lock_key else f"i:{self.agent_id}"


class ActivityLog(models.Model):
    """One line of an activity's history. Ids grow along each activity, so a reader can resume after one."""

    activity = models.ForeignKey(Activity, on_delete=models.CASCADE, related_name="logs")
    message = models.TextField()
    status = models.CharField(max_length=10, choices=Status.choices)
    percentage = models.PositiveSmallIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=0)
    traceback = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "agentexec_activity_log"
        default_permissions = ("view",)
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.created_at:%H:%M:%S} {self.status} {self.percentage}% {self.message}"
