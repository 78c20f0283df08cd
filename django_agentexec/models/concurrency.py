"""Limits of tasks and keys, and pauses of queues, tasks and tenants, which apply to all workers at once."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..choices import LimitScope, PauseScope
from ..rates import MAX_RATE_COUNT, parse_rate
from ..validation import MAX_COUNT
from .prices import validate_pattern

MAX_LIMIT_NAME = 500
MAX_PAUSE_NAME = 300


def validate_rate(text: str) -> None:
    """Raise `ValidationError` for a text that is not a rate such as `10/m`."""
    try:
        parse_rate(text)
    except ValueError:
        raise ValidationError(
            _("%(text)r is not a rate: give a number from 1 to %(most)s and a period (s, m, h or d), such as 10/m."),
            params={"text": text, "most": f"{MAX_RATE_COUNT:,}"},
        ) from None


class ConcurrencyLimit(models.Model):
    """A limit of a task or a key that takes precedence over the limit in the code."""

    scope = models.CharField(_("scope"), max_length=10, choices=LimitScope.choices, default=LimitScope.KEY)
    name = models.CharField(
        _("name"), max_length=MAX_LIMIT_NAME, validators=[validate_pattern],
        help_text=_("The name of a task, or an evaluated concurrency key such as org:7."),
    )  # fmt: skip
    maximum = models.PositiveIntegerField(
        _("maximum"), null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(MAX_COUNT)],
        help_text=_("Activities that run at the same time in one queue; 0: none starts; empty: any number."),
    )  # fmt: skip
    rate_limit = models.CharField(
        _("rate limit"), max_length=10, blank=True, default="", validators=[validate_rate],
        help_text=_("Starts per second, minute, hour or day, such as 10/m; empty: any number."),
    )  # fmt: skip

    class Meta:
        db_table = "agentexec_concurrency_limit"
        verbose_name = _("concurrency limit")
        verbose_name_plural = _("concurrency limits")
        ordering = ["scope", "name"]
        constraints = [models.UniqueConstraint(fields=["scope", "name"], name="agentexec_limit")]

    def __str__(self) -> str:
        parts = ["" if self.maximum is None else str(self.maximum), self.rate_limit]
        return f"{self.name} ({', '.join(filter(None, parts)) or '-'})"


class Pause(models.Model):
    """A pause: no waiting activity of a queue, task or tenant starts while the row exists."""

    scope = models.CharField(_("scope"), max_length=10, choices=PauseScope.choices)
    name = models.CharField(
        _("name"), max_length=MAX_PAUSE_NAME, validators=[validate_pattern],
        help_text=_("A queue, a task, or a tenant's metadata key and value such as organization_id=7."),
    )  # fmt: skip
    reason = models.CharField(_("reason"), max_length=500, blank=True, default="")
    actor = models.CharField(
        _("actor"), max_length=255, null=True, blank=True, help_text=_("Primary key of the user who caused it.")
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_pause"
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        ordering = ["scope", "name"]
        default_permissions = ("view",)
        permissions = [("pause_activity", "Can pause and resume queues, tasks and tenants")]
        constraints = [models.UniqueConstraint(fields=["scope", "name"], name="agentexec_one_pause")]

    def __str__(self) -> str:
        return f"{self.get_scope_display()} {self.name}"
