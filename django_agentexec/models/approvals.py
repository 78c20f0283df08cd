"""`Approval`: a decision or an answer that an agent waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..choices import ApprovalKind, ApprovalScope, ApprovalStatus, OnExpiry
from ..ids import uuid7
from .activities import Activity
from .calls import MAX_CALL_ID, MAX_PATH


class ApprovalQuerySet(models.QuerySet["Approval"]):
    """Queries of approvals."""

    def pending(self) -> ApprovalQuerySet:
        """Return the approvals without a decision, the first to expire first."""
        return self.filter(status=ApprovalStatus.PENDING).order_by(models.F("expires_at").asc(nulls_last=True), "id")

    def of(self, agent_id: UUID) -> ApprovalQuerySet:
        """Return the approvals of an activity that its next attempt uses, in the order of the requests."""
        return self.filter(activity_id=agent_id, set_aside=0).order_by("id")


if TYPE_CHECKING:

    class ApprovalManager(ApprovalQuerySet, models.Manager["Approval"]):  # type: ignore[misc]
        """The manager of approvals, with the methods of `ApprovalQuerySet`."""

else:
    ApprovalManager = models.Manager.from_queryset(ApprovalQuerySet, class_name="ApprovalManager")


class Approval(models.Model):
    """A tool call that a person must approve, a question to a person, or a call whose outcome a person must state.

    Its activity is suspended until no approval of it is pending.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    activity = models.ForeignKey(
        Activity, on_delete=models.CASCADE, related_name="approvals", db_index=False, verbose_name=_("activity")
    )
    kind = models.CharField(_("kind"), max_length=10, choices=ApprovalKind.choices, default=ApprovalKind.APPROVAL)
    path = models.CharField(_("path"), max_length=MAX_PATH, blank=True, default="")
    call_id = models.CharField(_("call id"), max_length=MAX_CALL_ID, blank=True, default="")
    number = models.PositiveSmallIntegerField(
        _("number"), default=0, help_text=_("Counts repeated requests for the same call, from 0.")
    )
    set_aside = models.BigIntegerField(_("set aside"), default=0, help_text=_("As of calls."))
    agent = models.CharField(_("agent"), max_length=200, blank=True, default="")
    tool = models.CharField(_("tool"), max_length=200)
    arguments = models.JSONField(_("arguments"), default=dict, blank=True)
    changed_arguments = models.JSONField(
        _("changed arguments"), null=True, blank=True,
        help_text=_("The arguments that were approved in place of those of the request."),
    )  # fmt: skip
    title = models.TextField(_("title"), blank=True, default="", help_text=_("The question, in words for people."))
    choices = models.JSONField(_("choices"), null=True, blank=True, help_text=_("Possible answers; null: free text."))
    status = models.CharField(
        _("status"), max_length=10, choices=ApprovalStatus.choices, default=ApprovalStatus.PENDING
    )
    scope = models.CharField(_("scope"), max_length=5, choices=ApprovalScope.choices, default=ApprovalScope.ONCE)
    answer = models.JSONField(
        _("answer"), null=True, blank=True, help_text=_("The answer to a question, or the output of a call in doubt.")
    )
    reason = models.TextField(_("reason"), blank=True, default="", help_text=_("The agent reads it."))
    requested_at = models.DateTimeField(_("requested at"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    on_expiry = models.CharField(_("on expiry"), max_length=10, choices=OnExpiry.choices, default=OnExpiry.REJECT)
    decided_by = models.CharField(
        _("decided by"), max_length=255, null=True, blank=True, help_text=_("Primary key of a user; null: code.")
    )
    assigned_to = models.CharField(
        _("assigned to"), max_length=255, null=True, blank=True,
        help_text=_("Primary key of the user who is asked to decide; null: nobody in particular."),
    )  # fmt: skip
    decided_at = models.DateTimeField(_("decided at"), null=True, blank=True)
    attempt = models.PositiveIntegerField(_("attempt"), default=1)

    objects: ClassVar[ApprovalManager] = ApprovalManager()

    class Meta:
        db_table = "agentexec_approval"
        verbose_name = _("approval")
        verbose_name_plural = _("approvals")
        default_permissions = ("view",)
        permissions = [("decide_approval", "Can decide approvals")]
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["activity", "set_aside", "path", "kind", "call_id", "number"], name="agentexec_approval_call"
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at", "id"], condition=Q(status=ApprovalStatus.PENDING), name="agentexec_pending"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tool} ({self.status})"

    @property
    def effective_arguments(self) -> Any:
        """The arguments with which the tool runs: those of the request, unless they were changed by the approval."""
        return self.arguments if self.changed_arguments is None else self.changed_arguments

    @property
    def is_void(self) -> bool:
        """Whether a later attempt asks again: its activity ended before the decision, or because of its expiry."""
        is_failure = self.status == ApprovalStatus.EXPIRED and self.on_expiry == OnExpiry.FAIL
        return self.status == ApprovalStatus.VOID or is_failure

    @property
    def is_pending(self) -> bool:
        """Whether it has no decision yet."""
        return self.status == ApprovalStatus.PENDING
