"""`ToolResult`: the first result of an idempotent tool for its arguments, or the call that computes it."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

MAX_TOOL = 200


class ToolResult(models.Model):
    """A call of a tool that `idempotent_tool` decorates, and its result once it has ended.

    A call in progress belongs to the attempt (activity and fence) that makes it. If another attempt has taken over the
    activity, or the activity has ended, the call has died with its process, and the next caller may repeat it.
    """

    key = models.CharField(
        _("key"), max_length=64, unique=True, help_text=_("Digest of the scope, the tool and its arguments.")
    )
    tool = models.CharField(_("tool"), max_length=MAX_TOOL)
    output = models.JSONField(_("output"), null=True, blank=True)
    is_done = models.BooleanField(_("is done"), default=False)
    agent_id = models.UUIDField(_("activity"), help_text=_("The activity that makes or made the call."))
    fence = models.BigIntegerField(_("fence"), default=0, help_text=_("The claim under which the call is made."))
    token = models.UUIDField(_("token"), help_text=_("Of the call that may write the result."))
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires at"), db_index=True)

    class Meta:
        db_table = "agentexec_tool_result"
        verbose_name = _("tool result")
        verbose_name_plural = _("tool results")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.tool} ({'done' if self.is_done else 'started'})"
