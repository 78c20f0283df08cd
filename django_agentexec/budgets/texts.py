"""Texts about budgets, for logs and pages."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.utils.translation import gettext, ngettext

from ..models import BudgetUnit
from ..money import dollars
from .charges import Crossing


def amount_text(amount: Decimal, unit: str) -> str:
    """Return an amount with its unit, such as "$0.10"."""
    if unit == BudgetUnit.MONEY:
        return dollars(amount)
    return ngettext("%(count)s token", "%(count)s tokens", round(amount)) % {"count": f"{amount:,.0f}"}


def line_text(crossings: Sequence[Crossing]) -> str:
    """Return the text of an activity's log line about the thresholds that a call has reached."""
    return " ".join(
        gettext("Budget %(budget)s has reached %(percentage)d %%.")
        % {"budget": crossing.ledger.label, "percentage": crossing.threshold}
        for crossing in crossings
    )


def public_line_text() -> str:
    """Return the text of that line for users who may not read of budgets."""
    return gettext("A budget has reached a threshold.")
