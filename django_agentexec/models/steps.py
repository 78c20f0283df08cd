"""The steps of pipelines."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..choices import StepState
from .activities import Activity


class StepRun(models.Model):
    """A step of a pipeline that has started.

    Written under the attempt's fence, in one transaction with its activity.
    """

    activity = models.ForeignKey(Activity, on_delete=models.CASCADE, related_name="steps", verbose_name=_("activity"))
    name = models.CharField(_("name"), max_length=200)
    position = models.PositiveSmallIntegerField(_("position"), help_text=_("Its position among the steps, from 0."))
    state = models.CharField(_("state"), max_length=10, choices=StepState.choices, default=StepState.RUNNING)
    input_digest = models.CharField(_("input digest"), max_length=64)
    result = models.JSONField(_("result"), null=True, blank=True)
    result_type = models.CharField(
        _("result type"), max_length=500, blank=True, default="", help_text=_("The result's type, for display.")
    )
    result_digest = models.CharField(
        _("result digest"), max_length=64, blank=True, default="", help_text=_("The next step's input digest.")
    )
    tries = models.PositiveIntegerField(
        _("tries"), default=1, help_text=_("Number of times it was started, without restarts after crashes.")
    )
    retries = models.PositiveIntegerField(
        _("retries"), default=0, help_text=_("Retries of this step used in this attempt.")
    )
    attempt = models.PositiveIntegerField(
        _("attempt"), default=1, help_text=_("The activity's attempt that started it last.")
    )
    error = models.TextField(_("error"), blank=True, default="", help_text=_("Last error, one line."))
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    class Meta:
        db_table = "agentexec_step_run"
        verbose_name = _("step run")
        verbose_name_plural = _("step runs")
        default_permissions = ("view",)
        ordering = ["position", "id"]
        constraints = [models.UniqueConstraint(fields=["activity", "name"], name="agentexec_step")]

    def __str__(self) -> str:
        return f"{self.position + 1}. {self.name} ({self.state})"
