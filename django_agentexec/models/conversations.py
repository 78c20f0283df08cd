"""`Conversation` and `ConversationItem`: the history of an agent's conversations."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..ids import uuid7
from .activities import Activity


class Conversation(models.Model):  # type: ignore[django-manager-missing]  # as of Activity
    """A conversation of a person with agents; each turn of an agent is an activity."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    session_id = models.CharField(_("session id"), max_length=255, unique=True)
    title = models.CharField(_("title"), max_length=255, blank=True, default="")
    owner = models.CharField(
        _("owner"), max_length=255, null=True, blank=True, help_text=_("Primary key of a user; null: code.")
    )
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_conversation"
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        default_permissions = ("view", "delete")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.title or self.session_id


class ConversationItem(models.Model):
    """An item of a conversation in the form of the model's API: a message, a tool call, its output, ..."""

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="items", db_index=False, verbose_name=_("conversation")
    )
    position = models.PositiveIntegerField(_("position"), help_text=_("From 0, increasing, with possible gaps."))
    item = models.JSONField(_("item"))
    activity = models.ForeignKey(
        Activity, models.SET_NULL, null=True, blank=True, related_name="conversation_items", db_index=False,
        verbose_name=_("activity"), help_text=_("The activity that wrote it; null: code outside of activities."),
    )  # fmt: skip
    key = models.CharField(
        _("key"), max_length=200, blank=True, default="",
        help_text=_("Its place among the items that the activity writes; a later attempt writes none twice."),
    )  # fmt: skip
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_conversation_item"
        verbose_name = _("conversation item")
        verbose_name_plural = _("conversation items")
        default_permissions = ("view",)
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "position"], name="agentexec_item_position"),
            models.UniqueConstraint(
                fields=["activity", "conversation", "key"],
                condition=Q(activity__isnull=False),
                name="agentexec_item_key",
            ),
        ]

    def __str__(self) -> str:
        return (
            f"{self.position} {self.item.get('role') or self.item.get('type') if isinstance(self.item, dict) else ''}"
        )
