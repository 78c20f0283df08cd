"""Activities and their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..choices import ACTIVE, FAILED_OR_CANCELED, HookFlag, LineType, Priority, Status, WaitingFor
from ..ids import uuid7
from ..querysets import ActivityQuerySet

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
    """One execution of a task: its input, its present state and its result.

    The row holds everything that is needed to execute the task again and its present state, so that neither a list
    nor a worker has to read the log.
    """

    agent_id = models.UUIDField(_("agent id"), primary_key=True, default=uuid7, editable=False)
    agent_type = models.CharField(_("agent type"), max_length=200, help_text=_("Name of the task."))
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.QUEUED)
    percentage = models.PositiveSmallIntegerField(_("percentage"), default=0, help_text=_("Progress, 0 to 100."))
    latest_log_message = models.TextField(_("latest log message"), blank=True, default="")
    latest_log_timestamp = models.DateTimeField(_("latest log timestamp"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)
    started_at = models.DateTimeField(
        _("started at"), null=True, blank=True, help_text=_("First start since it was last queued by a person or code.")
    )
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    context = models.JSONField(_("context"), default=dict, blank=True)
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    result = models.JSONField(_("result"), null=True, blank=True)
    usage = models.JSONField(
        _("usage"), default=dict, blank=True, help_text=_("Tokens and requests, summed over all attempts.")
    )
    error = models.TextField(_("error"), blank=True, default="", help_text=_("Last error, one line."))
    public_error = models.TextField(
        _("public error"), null=True, blank=True,
        help_text=_("The error for users without the monitor permission; null: its class."),
    )  # fmt: skip
    traceback = models.TextField(_("traceback"), blank=True, default="")
    enqueued_by = models.CharField(
        _("enqueued by"), max_length=255, null=True, blank=True, help_text=_("Primary key of a user.")
    )

    queue = models.CharField(
        _("queue"), max_length=100, blank=True, help_text=_("Empty: not queued, driven by its creator.")
    )
    parent = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="children", db_index=False,
        verbose_name=_("parent"), help_text=_("The activity whose handler enqueued this activity."),
    )  # fmt: skip
    lock_key = models.CharField(
        _("lock key"), max_length=500, blank=True, default="", help_text=_("Evaluated; empty: no lock.")
    )
    fairness = models.TextField(
        _("fairness"), null=True, blank=True, editable=False,
        help_text=_("Fair key and limits, evaluated, in the format of the queue; null: none."),
    )  # fmt: skip
    priority = models.PositiveSmallIntegerField(_("priority"), choices=Priority.choices, default=Priority.NORMAL)
    run_after = models.DateTimeField(_("run after"), null=True, blank=True, help_text=_("Due time; empty: at once."))
    idempotency_key = models.CharField(_("idempotency key"), max_length=255, null=True, blank=True)

    attempt = models.PositiveIntegerField(_("attempt"), default=0, help_text=_("Number of the latest attempt."))
    retries = models.PositiveIntegerField(
        _("retries"), default=0, help_text=_("Automatic retries used since it was queued or retried by a person.")
    )
    max_retries = models.PositiveIntegerField(_("max retries"), default=0)
    crashes = models.PositiveIntegerField(
        _("crashes"), default=0, help_text=_("Number of processes that died while running it.")
    )
    fence = models.BigIntegerField(
        _("fence"), default=0, help_text=_("Number of the latest claim; it never decreases.")
    )
    worker = models.CharField(
        _("worker"), max_length=200, blank=True, default="", help_text=_("The worker that runs it or ran it last.")
    )

    hook_flags = models.PositiveSmallIntegerField(
        _("hook flags"), db_column="ties", default=HookFlag.NONE, help_text=_("Flags: the hooks that run when it ends.")
    )
    spawn_key = models.CharField(
        _("spawn key"), max_length=255, null=True, blank=True, help_text=_("Its name among its siblings.")
    )
    spawn_generation = models.PositiveIntegerField(
        _("spawn generation"), db_column="spawned_in", default=0, db_default=0,
        help_text=_("The parent's pass that spawned it or, after a failure, queued it again."),
    )  # fmt: skip
    blocking_child_id = models.UUIDField(
        _("blocking child id"), db_column="waiting_for", null=True, blank=True,
        help_text=_("While suspended: the child whose end is examined next, or itself without one."),
    )  # fmt: skip
    awaited_ids = models.JSONField(
        _("awaited ids"), db_column="awaited", null=True, blank=True,
        help_text=_("While suspended: ids of all awaited children."),
    )  # fmt: skip
    discounted_crashes = models.PositiveIntegerField(
        _("discounted crashes"), db_column="forgiven", default=0, db_default=0,
        help_text=_("Crashes that no longer count, since the activity has made progress after them."),
    )  # fmt: skip
    spawn_position = models.PositiveIntegerField(
        _("spawn position"), null=True, blank=True,
        help_text=_("Its position among its siblings, from 0, in the order of spawning."),
    )  # fmt: skip
    fan_out = models.JSONField(
        _("fan-out"), null=True, blank=True,
        help_text=_("The children that each run of its handler must spawn again before it waits."),
    )  # fmt: skip
    waiting_for = models.CharField(
        _("waiting for"), max_length=10, db_column="waiting_reason", choices=WaitingFor.choices,
        blank=True, default="", db_default="", help_text=_("While suspended: the reason."),
    )  # fmt: skip
    cost = models.DecimalField(
        _("cost"), max_digits=20, decimal_places=10, null=True, blank=True,
        help_text=_("US dollars, summed over all priced model calls; null: no call has a known price."),
    )  # fmt: skip
    conversation = models.ForeignKey(
        "Conversation", models.SET_NULL, null=True, blank=True, related_name="activities", db_index=False,
        verbose_name=_("conversation"),
    )  # fmt: skip
    traceparent = models.CharField(
        _("traceparent"), max_length=55, blank=True, default="", db_default="",
        help_text=_("W3C trace context of the request that enqueued it."),
    )  # fmt: skip
    is_final = models.BooleanField(
        _("is final"), default=False, db_default=False,
        help_text=_("Permanently failed or canceled: it runs again only if a person retries it or its parent."),
    )  # fmt: skip

    waited: float | None = None
    """Seconds between its due time and its start; not stored, set for receivers of the change that starts it."""

    paused: str = ""
    """The scope of a pause because of which it does not start; not stored, set by `concurrency.rules.note_pauses`."""

    next_blocking_child_id: UUID | None = None
    """The last awaited child that has not ended; not stored, set by `Suspend` and `Resume`."""

    session_id: str | None = None
    """The session id of its conversation; not stored here, set by `Start`."""

    is_replayed: bool = False
    """Whether the attempt that starts repeats recorded calls or finished steps; not stored, set by `Start`."""
    ended_wait: bool = False
    """Whether the change ends a wait for a decision; not stored, set by `transitions`."""

    ended_parent: UUID | None = None
    """The parent that spawned it and has failed or was canceled; not stored, set by `Retry`."""

    DB_DEFAULT_FIELDS = frozenset(
        {
            *("started_at", "finished_at", "result", "public_error"),
            *("blocking_child_id", "awaited_ids", "discounted_crashes", "fan_out", "is_final"),
            *("waiting_for", "cost"),
        }
    )
    """Fields that an INSERT leaves to the database's defaults: a new activity does not use them."""

    objects: ClassVar[ActivityManager] = ActivityManager()

    class Meta:
        db_table = "agentexec_activity"
        verbose_name = _("activity")
        verbose_name_plural = _("activities")
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
            # Few rows have a parent; the other rows cost this index nothing.
            models.Index(fields=["parent"], condition=Q(parent__isnull=False), name="agentexec_parent"),
            models.Index(
                fields=["blocking_child_id"], condition=Q(blocking_child_id__isnull=False), name="agentexec_parked"
            ),
            models.Index(
                fields=["conversation"], condition=Q(conversation__isnull=False), name="agentexec_in_conversation"
            ),
            # Activities that wait for a condition; few, and each for a short time.
            models.Index(
                fields=["run_after"], condition=Q(waiting_for__in=["budget", "limit"]), name="agentexec_until"
            ),
            # Lists by cost contain only activities with a known cost.
            models.Index(fields=["cost", "agent_id"], condition=Q(cost__isnull=False), name="agentexec_cost"),
        ]
        # On PostgreSQL the first migration also creates a GIN index on `metadata`.

    def __str__(self) -> str:
        return f"{self.agent_type} {self.agent_id} ({self.get_status_display()})"

    @property
    def is_active(self) -> bool:
        """Whether it is queued or running."""
        return self.status in ACTIVE

    @property
    def is_retryable(self) -> bool:
        """Whether `retry` accepts it: it ended in error or was canceled, and passes through a queue.

        A child whose parent has failed or was canceled is refused all the same: retry its parent.
        """
        return self.status in FAILED_OR_CANCELED and bool(self.queue)

    @property
    def is_suspended(self) -> bool:
        """Whether it waits for children, a decision or a condition, without a worker: no slot, no lease, no lock."""
        return self.status == Status.RUNNING and self.blocking_child_id is not None


class ActivityLog(models.Model):
    """One line of an activity's history. Ids increase within each activity, so a reader can resume after an id."""

    activity = models.ForeignKey(Activity, on_delete=models.CASCADE, related_name="logs", verbose_name=_("activity"))
    message = models.TextField(_("message"))
    status = models.CharField(_("status"), max_length=10, choices=Status.choices)
    percentage = models.PositiveSmallIntegerField(_("percentage"), default=0)
    attempt = models.PositiveIntegerField(_("attempt"), default=0)
    traceback = models.TextField(_("traceback"), blank=True, default="")
    public_message = models.TextField(
        _("public message"), null=True, blank=True,
        help_text=_("The message for users without the monitor permission; null: the same."),
    )  # fmt: skip
    actor = models.CharField(
        _("actor"), max_length=255, null=True, blank=True, help_text=_("Primary key of the user who caused it.")
    )
    type = models.CharField(
        _("type"), max_length=10, choices=LineType.choices, blank=True, default="", db_default="",
        help_text=_("The kind of event."),
    )  # fmt: skip
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_activity_log"
        verbose_name = _("activity log")
        verbose_name_plural = _("activity logs")
        default_permissions = ("view",)
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.created_at:%H:%M:%S} {self.status} {self.percentage}% {self.message}"
