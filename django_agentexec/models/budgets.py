"""Budgets: the limits, what was spent and reserved of each, and the activities that wait for one."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..choices import BudgetAction, BudgetPeriod, BudgetScope, BudgetUnit
from ..ids import uuid7
from ..validation import MAX_NAME, is_storable
from .activities import Activity

MAX_METADATA_KEY, MAX_METADATA_VALUE = 100, 255


def _amount(name: Any, help_text: Any = "", **options: Any) -> models.DecimalField[Any, Any]:
    return models.DecimalField(name, max_digits=20, decimal_places=10, help_text=help_text, **options)


class Budget(models.Model):
    """A limit for the model calls of some activities in a period."""

    name = models.CharField(_("name"), max_length=MAX_NAME, help_text=_("For people, such as: Acme, monthly."))
    scope = models.CharField(_("scope"), max_length=10, choices=BudgetScope.choices, default=BudgetScope.ALL)
    task = models.CharField(
        _("task"), max_length=MAX_NAME, blank=True, default="", help_text=_("Of scope task: its name.")
    )
    metadata_key = models.CharField(
        _("metadata key"), max_length=MAX_METADATA_KEY, blank=True, default="",
        help_text=_("Of scope metadata: a key such as organization_id."),
    )  # fmt: skip
    metadata_value = models.CharField(
        _("metadata value"), max_length=MAX_METADATA_VALUE, blank=True, default="",
        help_text=_("Of scope metadata: the value as text. A number equals its text."),
    )  # fmt: skip
    agent_id = models.UUIDField(
        _("agent id"), null=True, blank=True, help_text=_("Of scope activity: the id of the activity.")
    )
    period = models.CharField(_("period"), max_length=10, choices=BudgetPeriod.choices, default=BudgetPeriod.MONTH)
    time_zone = models.CharField(
        _("time zone"), max_length=64, blank=True, default="",
        help_text=_("Of days and months, such as Europe/Berlin; empty: the time zone of the site."),
    )  # fmt: skip
    limit = _amount(_("limit"), _("US dollars or tokens in each period."), validators=[MinValueValidator(Decimal(0))])
    unit = models.CharField(_("unit"), max_length=10, choices=BudgetUnit.choices, default=BudgetUnit.MONEY)
    action = models.CharField(
        _("action"), max_length=10, choices=BudgetAction.choices, default=BudgetAction.SUSPEND,
        help_text=_("Before a call that would exceed the limit."),
    )  # fmt: skip
    is_active = models.BooleanField(_("active"), default=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    class Meta:
        db_table = "agentexec_budget"
        verbose_name = _("budget")
        verbose_name_plural = _("budgets")
        ordering = ["name", "id"]
        constraints = [models.CheckConstraint(condition=Q(limit__gte=0), name="agentexec_budget_limit")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Raise `ValidationError` for fields that contradict the scope, and for an unknown time zone."""
        needed = {
            BudgetScope.TASK: ("task",),
            BudgetScope.METADATA: ("metadata_key", "metadata_value"),
            BudgetScope.ACTIVITY: ("agent_id",),
        }.get(self.scope, ())  # type: ignore[call-overload]  # members of the enumeration are texts
        errors: dict[str, Any] = {
            field: _("This scope needs a value here.") for field in needed if getattr(self, field) in ("", None)
        }
        for field in {"task", "metadata_key", "metadata_value", "agent_id"} - set(needed):
            if getattr(self, field) not in ("", None):
                errors[field] = _("This scope has no such value; leave the field empty.")
        if self.time_zone and self.time_zone not in available_timezones():
            errors["time_zone"] = _("Unknown; give a name such as Europe/Berlin.")
        for field in ("name", "task", "metadata_key", "metadata_value"):
            if not is_storable(getattr(self, field)):
                errors[field] = _("Contains a NUL character; remove it.")
        if errors:
            raise ValidationError(errors)


class BudgetLedger(models.Model):
    """What was spent and reserved of a budget in one period, or of a budget that code declares in one run.

    Its primary key is derived from budget and period, so that every process finds it without a query. Changed under the
    lock of its row.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    budget = models.ForeignKey(
        Budget, models.CASCADE, null=True, blank=True, related_name="ledgers", verbose_name=_("budget"),
        help_text=_("Empty: declared in code."),
    )  # fmt: skip
    label = models.CharField(_("label"), max_length=MAX_NAME, help_text=_("The name of the budget."))
    period = models.CharField(_("period"), max_length=64, help_text=_("A day, a month, or the id of a run."))
    # Without a constraint: the previous release deletes activities and does not know this table.
    activity = models.ForeignKey(
        Activity, models.CASCADE, null=True, blank=True, related_name="budget_ledgers", db_index=False,
        db_constraint=False, verbose_name=_("activity"), help_text=_("The run to which it belongs; empty: a period."),
    )  # fmt: skip
    ends_at = models.DateTimeField(_("ends at"), null=True, blank=True)
    own_limit = _amount(
        _("limit"), _("Of this period or run alone; empty: that of the budget."), null=True, blank=True,
        validators=[MinValueValidator(Decimal(0))],
    )  # fmt: skip
    unit = models.CharField(_("unit"), max_length=10, choices=BudgetUnit.choices)
    action = models.CharField(
        _("action"), max_length=10, choices=BudgetAction.choices, blank=True, default="",
        help_text=_("Empty: that of the budget."),
    )  # fmt: skip
    spent = _amount(_("spent"), default=Decimal(0))
    reserved = _amount(_("reserved"), _("For calls in progress."), default=Decimal(0))
    notified = models.PositiveSmallIntegerField(
        _("notified"), default=0, help_text=_("The highest threshold, in percent, that was announced.")
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_budget_ledger"
        verbose_name = _("consumption of a budget")
        verbose_name_plural = _("consumption of budgets")
        default_permissions = ("view",)
        ordering = ["-created_at", "id"]
        indexes = [
            models.Index(fields=["activity"], condition=Q(activity__isnull=False), name="agentexec_budget_run"),
        ]

    def __str__(self) -> str:
        return f"{self.label} {self.period}"

    def clean(self) -> None:
        """Raise `ValidationError` for a ledger that would have no limit."""
        if self.budget_id is None and self.own_limit is None:
            raise ValidationError({"own_limit": _("Code declares this budget; give its limit.")})

    @property
    def limit(self) -> Decimal:
        """The limit that applies: its own, or that of the budget."""
        limit: Decimal | None = self.own_limit
        if limit is None:
            limit = self.budget.limit if self.budget is not None else Decimal(0)
        return limit

    @property
    def effect(self) -> BudgetAction:
        """The action that applies: its own, or that of the budget. An inactive budget only notifies."""
        if self.budget is not None and not self.budget.is_active:
            return BudgetAction.NOTIFY
        return BudgetAction(self.action or (self.budget.action if self.budget is not None else BudgetAction.SUSPEND))

    @property
    def available(self) -> Decimal:
        """What can still be reserved; negative after a call that cost more than its estimate."""
        spent: Decimal = self.spent + self.reserved
        return self.limit - spent

    @property
    def percentage(self) -> int:
        """What was spent, in percent of the limit."""
        return int(self.spent * 100 / self.limit) if self.limit > 0 else 100

    def has_ended(self, now: datetime) -> bool:
        """Return whether its period is over."""
        return self.ends_at is not None and self.ends_at <= now


class BudgetReservation(models.Model):
    """The part of a ledger that a call of a model in progress has reserved."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    ledger = models.ForeignKey(BudgetLedger, models.CASCADE, related_name="reservations", verbose_name=_("ledger"))
    agent_id = models.UUIDField(_("agent id"))
    fence = models.BigIntegerField(_("fence"), help_text=_("The claim whose end releases it."))
    amount = _amount(_("amount"))
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_budget_reservation"
        verbose_name = _("reservation of a budget")
        verbose_name_plural = _("reservations of budgets")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.amount} for {self.agent_id}"


class BudgetWait(models.Model):
    """A suspended activity, and what it waits for: an amount of a ledger, or the price of a model."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    ledger = models.ForeignKey(BudgetLedger, models.CASCADE, related_name="waits", verbose_name=_("ledger"))
    agent_id = models.UUIDField(_("agent id"), db_index=True)
    amount = _amount(_("amount"), _("Empty: the price of the model is unknown."), null=True, blank=True)
    model = models.CharField(_("model"), max_length=200, blank=True, default="")
    provider = models.CharField(_("provider"), max_length=100, blank=True, default="")
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_budget_wait"
        verbose_name = _("wait for a budget")
        verbose_name_plural = _("waits for budgets")
        default_permissions = ()
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.agent_id} waits for {self.ledger_id}"
