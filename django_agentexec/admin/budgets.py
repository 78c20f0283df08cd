"""The admin of budgets: plain Django, with what was spent of each. A higher limit resumes what waits for it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..budgets.commands import limit_changed, set_limit_of_period
from ..budgets.notices import amount_text
from ..budgets.queries import BudgetSchema, consumption
from ..changelists import StorableLookups
from ..models import Activity, Budget, BudgetLedger, BudgetScope
from ..policy import get_policy
from .access import SharedRowsAccess, visible, warn_of_unknown_task

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as BudgetBase
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as BudgetBase
else:
    from django.contrib.admin import ModelAdmin as BudgetBase


IDENTIFYING = ("scope", "task", "metadata_key", "metadata_value", "agent_id", "unit", "period", "time_zone")


class _Access(StorableLookups, SharedRowsAccess, BudgetBase):  # type: ignore[type-arg]  # of two models
    """Staff of one tenant may look at what the policy shows; only users who see everything may change it."""

    class Media:
        css = {"all": ["agentexec/css/base.css"]}


class BudgetAdmin(_Access):
    """Budgets with the consumption of their current period."""

    list_display = ("name", "covers", "period", "consumption", "limit_text", "action", "waiting", "is_active")
    list_filter = ("scope", "period", "action", "is_active")
    search_fields = ("name", "task", "metadata_key", "metadata_value")
    fieldsets = (
        (None, {"fields": ("name", "is_active")}),
        (gettext_lazy("Covers"), {"fields": ("scope", "task", "metadata_key", "metadata_value", "agent_id")}),
        (
            gettext_lazy("Limit"),
            {
                "fields": ("limit", "unit", "period", "time_zone", "action"),
                "description": gettext_lazy(
                    "A higher limit applies at once and resumes the activities that wait for it. A new budget applies "
                    "in all workers within 5 seconds. What it covers, its unit and its period cannot be changed: add "
                    "another budget and deactivate this budget."
                ),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Budget]:
        """Return the budgets that the policy shows to the user."""
        return get_policy().visible_budgets(request.user, super().get_queryset(request))

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """Return the fields that identify the consumption: it would not be that of the changed budget."""
        return () if obj is None else IDENTIFYING

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        """Return a list whose rows have their consumption."""
        return type("ConsumptionList", (_WithConsumption, super().get_changelist(request, **options)), {})

    def save_model(self, request: HttpRequest, obj: Budget, form: ModelForm[Budget], change: bool) -> None:
        """Save a budget, and resume the activities that it covers now."""
        super().save_model(request, obj, form, change)
        if change:
            limit_changed(obj)
        if obj.scope == BudgetScope.TASK:
            warn_of_unknown_task(request, obj.task)

    @admin.display(description=gettext_lazy("Covers"))
    def covers(self, row: Budget) -> str:
        """Return the activities that it covers."""
        if row.metadata_key:
            return f"{row.metadata_key}={row.metadata_value}"
        return row.task or (str(row.agent_id) if row.agent_id else row.get_scope_display())

    @admin.display(description=gettext_lazy("Spent"))
    def consumption(self, row: Budget) -> SafeString | str:
        """Return what was spent in the current period as a bar."""
        shown: BudgetSchema = row.shown  # type: ignore[attr-defined]  # set by the list
        if shown.spent is None:
            return _("by run")
        return bar(shown.spent, shown.reserved or Decimal(0), shown.limit, shown.unit)

    @admin.display(description=gettext_lazy("Limit"), ordering="limit")
    def limit_text(self, row: Budget) -> str:
        """Return the limit of the current period."""
        return amount_text(row.shown.limit, row.unit)  # type: ignore[attr-defined]  # set by the list

    @admin.display(description=gettext_lazy("Waiting"))
    def waiting(self, row: Budget) -> int:
        """Return the number of activities that wait for it."""
        return cast(int, row.shown.waiting)  # type: ignore[attr-defined]  # set by the list


class BudgetLedgerAdmin(_Access):
    """The consumption of each period and run. Only the limit of one period or run can be changed."""

    list_display = ("label", "period", "consumption", "limit_text", "ends_at")
    list_filter = ("unit",)
    search_fields = ("label", "period")
    list_select_related = ("budget",)
    fields = ("label", "period", "ends_at", "own_limit", "spent_text", "reserved_text")
    readonly_fields = ("label", "period", "ends_at", "spent_text", "reserved_text")

    def get_queryset(self, request: HttpRequest) -> QuerySet[BudgetLedger]:
        """Return the ledgers of the budgets and activities that the policy shows to the user."""
        ledgers: QuerySet[BudgetLedger] = super().get_queryset(request)
        policy = get_policy()
        if policy.may_monitor(request.user):
            return ledgers
        budgets = policy.visible_budgets(request.user, Budget.objects.all())
        activities = visible(request, Activity.objects.all()).order_by()
        return ledgers.filter(Q(budget__in=budgets) | Q(budget__isnull=True, activity__in=activities))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: workers write ledgers."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return False: ledgers are deleted with their budget or activity."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether the user may change budgets."""
        allowed = request.user.has_perm(f"{self.opts.app_label}.change_budget")
        return allowed and get_policy().may_monitor(request.user)

    def save_model(self, request: HttpRequest, obj: BudgetLedger, form: ModelForm[BudgetLedger], change: bool) -> None:
        """Write the limit alone: workers change the other fields meanwhile."""
        set_limit_of_period(obj, form.cleaned_data["own_limit"])

    @admin.display(description=gettext_lazy("Spent"))
    def consumption(self, row: BudgetLedger) -> SafeString:
        """Return what was spent as a bar."""
        return bar(row.spent, row.reserved, row.limit, row.unit)

    @admin.display(description=gettext_lazy("Limit"))
    def limit_text(self, row: BudgetLedger) -> str:
        """Return the limit that applies."""
        return amount_text(row.limit, row.unit)

    @admin.display(description=gettext_lazy("Spent"))
    def spent_text(self, row: BudgetLedger) -> str:
        """Return what was spent."""
        return amount_text(row.spent, row.unit)

    @admin.display(description=gettext_lazy("Reserved"))
    def reserved_text(self, row: BudgetLedger) -> str:
        """Return what is reserved for calls in progress."""
        return amount_text(row.reserved, row.unit)


class _WithConsumption:
    """A list of budgets that reads the consumption of its page together."""

    def get_results(self, request: HttpRequest) -> None:
        """Read a page."""
        super().get_results(request)  # type: ignore[misc]  # of ChangeList
        rows = list(self.result_list)  # type: ignore[has-type]  # of ChangeList
        for row, shown in zip(rows, consumption(rows), strict=True):
            row.shown = shown
        self.result_list = rows


def bar(spent: Decimal, reserved: Decimal, limit: Decimal, unit: str) -> SafeString:
    """Return an amount as a bar and a text."""
    percentage = int(spent * 100 / limit) if limit else 100
    tone = "error" if percentage >= 100 else "attention" if percentage >= 80 else "running"
    text = amount_text(spent, unit)
    if reserved:
        text = _("%(spent)s, %(reserved)s reserved") % {"spent": text, "reserved": amount_text(reserved, unit)}
    return format_html(
        '<span class="ae-progress" data-status="{}"><progress max="100" value="{}" aria-label="{}"></progress>'
        '<span class="ae-number">{} % ({})</span></span>',
        tone,
        min(percentage, 100),
        _("Spent"),
        percentage,
        text,
    )
