"""The budgets on the dashboard: those of which the largest part of the current period is spent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..budgets.notices import amount_text
from ..budgets.queries import consumption
from ..models import Budget, BudgetPeriod
from ..policy import get_policy
from .budgets import bar
from .formatting import moment

MAX_SHOWN = 5
MAX_READ = 200  # budgets, by name


@dataclass(frozen=True)
class BudgetLine:
    """A budget with its current period."""

    name: str
    url: str
    bar: SafeString
    limit: str
    waiting: int
    ends: SafeString | str


def budget_lines(request: HttpRequest, site: AdminSite) -> list[BudgetLine]:
    """Return the budgets of days and months that the user may see, the most exhausted first. Three queries at most."""
    if not (site.is_registered(Budget) and request.user.has_perm("agentexec.view_budget")):
        return []
    rows = get_policy().visible_budgets(request.user, Budget.objects.filter(is_active=True))
    shown = consumption(list(rows.exclude(period=BudgetPeriod.RUN).order_by("name", "pk")[:MAX_READ]))
    shown.sort(key=lambda each: -(each.percentage or 0))
    return [
        BudgetLine(
            name=each.name,
            url=reverse(f"{site.name}:agentexec_budget_change", args=[each.id]),
            bar=bar(each.spent or Decimal(0), each.reserved or Decimal(0), each.limit, each.unit),
            limit=_("of %(limit)s") % {"limit": amount_text(each.limit, each.unit)},
            waiting=each.waiting,
            ends=moment(each.ends_at) if each.ends_at else "",
        )
        for each in shown[:MAX_SHOWN]
    ]
