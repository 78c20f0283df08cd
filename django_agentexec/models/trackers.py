"""The state of trackers."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .activities import Activity


class TrackerState(models.Model):
    """The stored state of `django_agentexec.Tracker`: the task to enqueue when all of its members are done."""

    name = models.CharField(_("name"), max_length=200)
    batch_id = models.CharField(_("batch id"), max_length=200)
    task = models.CharField(
        _("task"), max_length=200, blank=True, default="", help_text=_("Empty: there is nothing to enqueue yet.")
    )
    context = models.JSONField(_("context"), null=True, blank=True)
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    parent = models.ForeignKey(
        Activity, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False, verbose_name=_("parent")
    )
    fired = models.UUIDField(_("fired"), null=True, blank=True, help_text=_("The activity that was enqueued."))
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_tracker"
        verbose_name = _("tracker state")
        verbose_name_plural = _("tracker states")
        default_permissions = ("view", "delete")
        constraints = [models.UniqueConstraint(fields=["name", "batch_id"], name="agentexec_tracker_batch")]

    def __str__(self) -> str:
        return f"{self.name} {self.batch_id}"


class TrackerMember(models.Model):
    """A member of a tracker. It counts once, however often it is added or marked as done."""

    tracker = models.ForeignKey(
        TrackerState, on_delete=models.CASCADE, related_name="members", db_index=False, verbose_name=_("tracker")
    )
    member = models.CharField(_("member"), max_length=255)
    activity_id = models.UUIDField(
        _("activity id"), null=True, blank=True, help_text=_("The activity whose end marks it as done.")
    )
    is_done = models.BooleanField(_("is done"), default=False)

    class Meta:
        db_table = "agentexec_tracker_member"
        verbose_name = _("tracker member")
        verbose_name_plural = _("tracker members")
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["tracker", "member"], name="agentexec_tracker_member_once")]
        indexes = [
            models.Index(fields=["tracker"], condition=Q(is_done=False), name="agentexec_tracker_open"),
            models.Index(fields=["activity_id"], condition=Q(activity_id__isnull=False), name="agentexec_tracked"),
        ]

    def __str__(self) -> str:
        return self.member
