"""`AgentCall`: one table that is the journal, the trace and the bill of all agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..choices import CallKind, CallState
from ..ids import uuid7
from .activities import Activity

MAX_PATH = 500
MAX_CALL_ID = 200


class CallQuerySet(models.QuerySet["AgentCall"]):
    """Queries of recorded calls."""

    def current(self) -> CallQuerySet:
        """Return the calls that a later attempt replays: those that no retry has set aside."""
        return self.filter(set_aside=0)

    def of(self, agent_id: UUID) -> CallQuerySet:
        """Return the calls of an activity in the order of their start."""
        return self.filter(activity_id=agent_id).order_by("id")

    def billed(self) -> CallQuerySet:
        """Return the calls of models that were answered, or that have failed with tokens: also those set aside.

        They have been paid, except cached answers, whose cost is 0. Calls that a fork has kept belong to attempt 0, and
        the activity that made them pays for them.
        """
        is_paid = Q(state=CallState.DONE) | Q(state=CallState.FAILED, input_tokens__gt=0)
        return self.filter(is_paid, kind=CallKind.MODEL, attempt__gt=0)

    def unpriced(self) -> CallQuerySet:
        """Return the billed calls whose cost is unknown."""
        return self.billed().filter(cost__isnull=True)


if TYPE_CHECKING:

    class CallManager(CallQuerySet, models.Manager["AgentCall"]):  # type: ignore[misc]
        """The manager of calls, with the methods of `CallQuerySet`."""

else:
    CallManager = models.Manager.from_queryset(CallQuerySet, class_name="CallManager")


class AgentCall(models.Model):
    """A run of an agent, a call of a model or tool, or a side effect of a handler.

    Written under the attempt's fence, in the group commit of its activity. A call is identified by its place in the
    handler's execution (`path`, `kind`, `ordinal`, `call_id`) and never by its content.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    activity = models.ForeignKey(
        Activity, on_delete=models.CASCADE, related_name="calls", db_index=False, verbose_name=_("activity")
    )
    path = models.CharField(
        _("path"), max_length=MAX_PATH, blank=True, default="", help_text=_("The run of an agent that made it.")
    )
    kind = models.CharField(_("kind"), max_length=10, choices=CallKind.choices)
    ordinal = models.PositiveIntegerField(
        _("ordinal"), default=0, help_text=_("The number of the model call within its path, from 0.")
    )
    call_id = models.CharField(
        _("call id"),
        max_length=MAX_CALL_ID,
        blank=True,
        default="",
        help_text=_("The id that the model gave a tool call."),
    )
    agent = models.CharField(_("agent"), max_length=200, blank=True, default="")
    name = models.CharField(_("name"), max_length=200, blank=True, default="", help_text=_("Of the model or tool."))
    provider = models.CharField(
        _("provider"), max_length=100, blank=True, default="", db_default="",
        help_text=_("Of the model: a provider such as openai, or the host name of its server; empty: unknown."),
    )  # fmt: skip
    state = models.CharField(_("state"), max_length=10, choices=CallState.choices, default=CallState.STARTED)
    digest = models.CharField(_("digest"), max_length=64, blank=True, default="", help_text=_("Of the request."))
    has_changed = models.BooleanField(
        _("has changed"), default=False, help_text=_("Whether a later attempt made another request at this place.")
    )
    request = models.JSONField(_("request"), null=True, blank=True)
    arguments = models.JSONField(_("arguments"), null=True, blank=True)
    output = models.JSONField(_("output"), null=True, blank=True)
    error = models.TextField(_("error"), blank=True, default="", help_text=_("One line."))
    input_tokens = models.PositiveIntegerField(_("input tokens"), default=0)
    cached_tokens = models.PositiveIntegerField(_("cached tokens"), default=0, help_text=_("Part of the input tokens."))
    output_tokens = models.PositiveIntegerField(_("output tokens"), default=0)
    reasoning_tokens = models.PositiveIntegerField(
        _("reasoning tokens"), default=0, help_text=_("Part of the output tokens.")
    )
    cost = models.DecimalField(
        _("cost"), max_digits=20, decimal_places=10, null=True, blank=True,
        help_text=_("US dollars; null: no price is known."),
    )  # fmt: skip
    is_cached = models.BooleanField(
        _("is cached"),
        default=False,
        db_default=False,
        help_text=_("Whether a cached answer, or the first result of an idempotent tool, was used."),
    )
    attempt = models.PositiveIntegerField(_("attempt"), default=1, help_text=_("The attempt that made the call."))
    fence = models.BigIntegerField(_("fence"), default=0, help_text=_("The claim under which the call was made."))
    set_aside = models.BigIntegerField(
        _("set aside"), default=0, help_text=_("0 while it is replayed, then the fence before which it was set aside.")
    )
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    objects: ClassVar[CallManager] = CallManager()

    class Meta:
        db_table = "agentexec_call"
        verbose_name = _("agent call")
        verbose_name_plural = _("agent calls")
        default_permissions = ("view",)
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["activity", "set_aside", "path", "kind", "ordinal", "call_id"], name="agentexec_call_place"
            ),
        ]
        indexes = [
            models.Index(fields=["name", "activity"], name="agentexec_call_name"),
            # For usage by time. Neither column changes when a call ends, so PostgreSQL updates no index then.
            models.Index(fields=["started_at"], condition=Q(kind="model"), name="agentexec_call_model"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name or self.agent} ({self.state})"

    @property
    def place(self) -> tuple[str, str, int, str]:
        """Its identity within the activity: path, kind, ordinal and call id."""
        return self.path, str(self.kind), self.ordinal, self.call_id

    @property
    def is_billed(self) -> bool:
        """Whether it is one of `CallQuerySet.billed`."""
        is_paid = self.state == CallState.DONE or (self.state == CallState.FAILED and self.input_tokens > 0)
        return self.kind == CallKind.MODEL and is_paid and self.attempt > 0

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end; None while it runs, and if its process died at an unknown time."""
        if self.finished_at is None or self.finished_at == self.started_at:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    def usage(self) -> dict[str, Any]:
        """Return its tokens in the form of `Activity.usage`."""
        return {
            "requests": 0 if self.is_cached else 1,
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }
