"""Activity and ActivityLog: the rows that are the truth about every run, and the questions one can ask.

Rows are read through these QuerySets by everyone, and written by `django_agentexec.activity` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from .exceptions import InvalidOption
from .expressions import (
    ActiveFirst,
    JSONHasKeyValue,
    Scalar,
    can_be_in_json,
    metadata_holds,
    parse_candidates,
    same_values,
)
from .ids import uuid7


class Status(models.TextChoices):
    """The states of an activity; the values are the wire's."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    ERROR = "error"
    CANCELED = "canceled"


ACTIVE = (Status.QUEUED, Status.RUNNING)
FINISHED = (Status.COMPLETE, Status.ERROR, Status.CANCELED)
FAILED = (Status.ERROR, Status.CANCELED)


class Priority(models.IntegerChoices):
    """Who goes first: every HIGH before every NORMAL before every LOW; equals in order of arrival."""

    HIGH = 1
    NORMAL = 4
    LOW = 7


class HookFlag(models.IntegerChoices):
    """Flags of `Activity.ties`: who must hear of its end. An activity without any costs nothing extra."""

    NONE = 0
    CHILD = 1
    """It was spawned: its parent may be waiting for it."""
    PARENT = 2
    """It has spawned others, which are canceled when it fails or is canceled."""
    TRACKED = 4
    """A tracker counts it."""


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

    def suspended(self) -> ActivityQuerySet:
        """Return those that wait for others, without a worker."""
        return self.running().filter(blocking_child_id__isnull=False)

    def exclude_suspended(self) -> ActivityQuerySet:
        """Return all but the parked ones, which no queue knows."""
        return self.exclude(status=Status.RUNNING, blocking_child_id__isnull=False)

    def spawned_by(self, agent_id: UUID) -> ActivityQuerySet:
        """Return what the activity has spawned."""
        return self.filter(parent_id=agent_id, spawn_key__isnull=False)

    def managed(self) -> ActivityQuerySet:
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
        return self.filter(*(JSONHasKeyValue("metadata", key, value) for key, value in metadata.items()))

    def for_metadata_text(self, key: str, *texts: str) -> ActivityQuerySet:
        """Return those whose metadata holds one of `texts` under `key`, as it is or as what it is in JSON.

        For what people type: `7` finds the text and the number, `true` the boolean, `null` the null.
        """
        return self._with_one_of(key, [value for text in texts for value in parse_candidates(text)])

    def for_same_metadata(self, /, **metadata: str | int | float | bool | None) -> ActivityQuerySet:
        """Return those whose metadata holds these values, as text or as numbers: "1" finds 1, and 1 finds "1".

        For what identifies a tenant. None finds nothing.
        """
        found = self
        for key, value in metadata.items():
            found = found._with_one_of(key, same_values(value))
        return found

    def metadata_condition(self, key: str, values: Iterable[Scalar]) -> Q | None:
        """Return the condition that the metadata has one of `values` under `key`, or None if no row can have it."""
        return metadata_holds(key, values, has_containment=self._has_json_containment())

    def _with_one_of(self, key: str, values: Iterable[Scalar]) -> ActivityQuerySet:
        condition = self.metadata_condition(key, values)
        return self.none() if condition is None else self.filter(condition)

    def active_first(self) -> ActivityQuerySet:
        """Return active ones before finished ones, the newest first in each part."""
        return self.order_by(ActiveFirst("status").asc(), F("agent_id").desc())

    def without_payloads(self) -> ActivityQuerySet:
        """Return them without the columns that no list shows, and that can be megabytes; reading one costs a query."""
        return self.defer("context", "result", "traceback")

    def bounded_count(self, limit: int) -> int:
        """Return how many there are, or `limit` if there are more: a count that never reads a million rows."""
        return self.order_by()[:limit].count()

    def _has_json_containment(self) -> bool:
        from django.db import connections

        return bool(connections[self.db].features.supports_json_field_contains)


if TYPE_CHECKING:

    class ActivityManager(ActivityQuerySet, models.Manager["Activity"]):  # type: ignore[misc]
        """The manager of activities, with the methods of `ActivityQuerySet`."""

else:
    ActivityManager = models.Manager.from_queryset(ActivityQuerySet, class_name="ActivityManager")


_ACTIVE_FIRST = Case(
    When(status__in=[Status.QUEUED, Status.RUNNING], then=Value(0)),
    default=Value(1),
    output_field=models.SmallIntegerField(),
)


class Activity(models.Model):  # type: ignore[django-manager-missing]  # a limit of the mypy plugin
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
    public_error = models.TextField(null=True, blank=True, help_text="What of it everybody may read; null: its class.")
    traceback = models.TextField(blank=True, default="")
    enqueued_by = models.CharField(max_length=255, null=True, blank=True, help_text="Primary key of a user.")

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

    hook_flags = models.PositiveSmallIntegerField(
        db_column="ties", default=HookFlag.NONE, help_text="Flags: the hooks that run when it ends."
    )
    spawn_key = models.CharField(max_length=255, null=True, blank=True, help_text="Its name among its siblings.")
    spawn_generation = models.PositiveIntegerField(
        db_column="spawned_in", default=0, db_default=0,
        help_text="The parent's pass that spawned it or, after a failure, queued it again.",
    )  # fmt: skip
    blocking_child_id = models.UUIDField(
        db_column="waiting_for", null=True, blank=True,
        help_text="While suspended: the child whose end is examined next.",
    )  # fmt: skip
    awaited_ids = models.JSONField(
        db_column="awaited", null=True, blank=True, help_text="While suspended: ids of all awaited children."
    )
    discounted_crashes = models.PositiveIntegerField(
        db_column="forgiven", default=0, db_default=0,
        help_text="Crashes that no longer count, since the activity has made progress after them.",
    )  # fmt: skip
    spawn_position = models.PositiveIntegerField(
        null=True, blank=True, help_text="Its place among its siblings, from 0, in the order of their spawning."
    )
    fan_out = models.JSONField(
        null=True, blank=True, help_text="What each run of its handler must spawn again before its waits."
    )
    is_final = models.BooleanField(
        default=False, db_default=False,
        help_text="Given up on or canceled: only a person's retry, of it or of its parent, runs it again.",
    )  # fmt: skip

    waited: float | None = None
    """Seconds between its turn and its start; not stored, known to receivers of the change that starts it."""

    next_blocking_child_id: UUID | None = None
    """The last one of those it waits for that has not ended; not stored, looked up for `Park` and `Wake`."""

    ended_parent: UUID | None = None
    """The parent that spawned it and has failed or was canceled; not stored, looked up for `Retry`."""

    DB_DEFAULT_FIELDS = frozenset({"blocking_child_id", "awaited_ids", "discounted_crashes", "fan_out", "is_final"})
    """Columns that a new row leaves to the database: most activities never use them."""

    objects: ClassVar[ActivityManager] = ActivityManager()

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
            models.UniqueConstraint(
                fields=["parent", "spawn_key"], condition=Q(spawn_key__isnull=False), name="agentexec_spawn"
            ),
        ]
        indexes = [
            models.Index(_ACTIVE_FIRST.asc(), F("agent_id").desc(), name="agentexec_active_first"),
            models.Index(fields=["status", "agent_id"], name="agentexec_status"),
            models.Index(fields=["agent_type", "agent_id"], name="agentexec_type"),
            # Few have a parent; the others cost this index nothing.
            models.Index(fields=["parent"], condition=Q(parent__isnull=False), name="agentexec_parent"),
            models.Index(
                fields=["blocking_child_id"], condition=Q(blocking_child_id__isnull=False), name="agentexec_parked"
            ),
        ]
        # On PostgreSQL the first migration also makes a GIN index on `metadata`.

    def __str__(self) -> str:
        return f"{self.agent_type} {self.agent_id} ({self.status})"

    @property
    def is_active(self) -> bool:
        """Whether it is queued or running."""
        return self.status in ACTIVE

    @property
    def is_suspended(self) -> bool:
        """Whether it waits for others, without a worker: no slot, no lease, no lock."""
        return self.status == Status.RUNNING and self.blocking_child_id is not None

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
    public_message = models.TextField(null=True, blank=True, help_text="The message for everybody, if it is another.")
    actor = models.CharField(max_length=255, null=True, blank=True, help_text="Who caused it: a user's primary key.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "agentexec_activity_log"
        default_permissions = ("view",)
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.created_at:%H:%M:%S} {self.status} {self.percentage}% {self.message}"


class StepState(models.TextChoices):
    """How far a pipeline's step is; the values are the wire's."""

    RUNNING = "running"
    COMPLETE = "complete"
    ERROR = "error"


class StepRun(models.Model):
    """A step of a pipeline that has begun. Written under the attempt's fence, in one transaction with its activity."""

    activity = models.ForeignKey(Activity, on_delete=models.CASCADE, related_name="steps")
    name = models.CharField(max_length=200)
    position = models.PositiveSmallIntegerField(help_text="Its place among the steps, from 0.")
    state = models.CharField(max_length=10, choices=StepState.choices, default=StepState.RUNNING)
    input_digest = models.CharField(max_length=64)
    result = models.JSONField(null=True, blank=True)
    result_type = models.CharField(max_length=500, blank=True, default="", help_text="The result's type, for people.")
    result_digest = models.CharField(max_length=64, blank=True, default="", help_text="The next step's input digest.")
    tries = models.PositiveIntegerField(default=1, help_text="How often it was begun anew, crashes not counted.")
    retries = models.PositiveIntegerField(default=0, help_text="Retries of its own, used in this attempt.")
    attempt = models.PositiveIntegerField(default=1, help_text="The activity's attempt that began it last.")
    error = models.TextField(blank=True, default="", help_text="Last error, one line.")
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "agentexec_step_run"
        default_permissions = ("view",)
        ordering = ["position", "id"]
        constraints = [models.UniqueConstraint(fields=["activity", "name"], name="agentexec_step")]

    def __str__(self) -> str:
        return f"{self.position + 1}. {self.name} ({self.state})"


class TrackerState(models.Model):
    """The stored side of `django_agentexec.Tracker`: what is to be enqueued when all of its members are done."""

    name = models.CharField(max_length=200)
    batch_id = models.CharField(max_length=200)
    task = models.CharField(max_length=200, blank=True, default="", help_text="Empty: nothing is to be enqueued yet.")
    context = models.JSONField(null=True, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    parent = models.ForeignKey(Activity, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False)
    fired = models.UUIDField(null=True, blank=True, help_text="The activity that was enqueued.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "agentexec_tracker"
        default_permissions = ("view", "delete")
        constraints = [models.UniqueConstraint(fields=["name", "batch_id"], name="agentexec_tracker_batch")]

    def __str__(self) -> str:
        return f"{self.name} {self.batch_id}"


class TrackerMember(models.Model):
    """One that a tracker counts, once, however often it is counted in or out."""

    tracker = models.ForeignKey(TrackerState, on_delete=models.CASCADE, related_name="members", db_index=False)
    member = models.CharField(max_length=255)
    activity_id = models.UUIDField(null=True, blank=True, help_text="The activity whose end counts it out.")
    is_done = models.BooleanField(default=False)

    class Meta:
        db_table = "agentexec_tracker_member"
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["tracker", "member"], name="agentexec_tracker_member_once")]
        indexes = [
            models.Index(fields=["tracker"], condition=Q(is_done=False), name="agentexec_tracker_open"),
            models.Index(fields=["activity_id"], condition=Q(activity_id__isnull=False), name="agentexec_tracked"),
        ]

    def __str__(self) -> str:
        return self.member
