"""Notices of budgets: the announcement of thresholds, by a signal and a record in the log, and the texts of all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from decimal import Decimal

from django.utils.translation import gettext, ngettext

from ..models import BudgetLedger, BudgetUnit
from ..money import dollars
from ..signals import budget_threshold
from .charges import Crossing

logger = logging.getLogger(__name__)


def announce(crossings: Sequence[Crossing]) -> None:
    """Send the signal for each threshold that a call has reached, and log it; each threshold occurs once."""
    for crossing in crossings:
        ledger = crossing.ledger
        spent, limit = amount_text(ledger.spent, ledger.unit), amount_text(ledger.limit, ledger.unit)
        if crossing.threshold == 100 and ledger.spent < ledger.limit:  # noted by a call that was refused
            logger.warning("Budget %s cannot cover the next call: %s of %s are spent.", ledger, spent, limit)
        else:
            logger.warning("Budget %s has reached %d %%: %s of %s are spent.", ledger, crossing.threshold, spent, limit)
        budget_threshold.send_robust(BudgetLedger, ledger=ledger, budget=ledger.budget, threshold=crossing.threshold)


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
