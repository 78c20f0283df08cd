"""The announcement of thresholds: the signal `budget_threshold` and a record in the log, once per threshold."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..models import BudgetLedger
from ..signals import budget_threshold
from .charges import Crossing
from .texts import amount_text

logger = logging.getLogger(__name__)


def announce(crossings: Sequence[Crossing]) -> None:
    """Send the signal for each threshold, and log it."""
    for crossing in crossings:
        ledger = crossing.ledger
        spent, limit = amount_text(ledger.spent, ledger.unit), amount_text(ledger.limit, ledger.unit)
        if crossing.threshold == 100 and ledger.spent < ledger.limit:  # noted by a call that was refused
            logger.warning("Budget %s cannot cover the next call: %s of %s are spent.", ledger, spent, limit)
        else:
            logger.warning("Budget %s has reached %d %%: %s of %s are spent.", ledger, crossing.threshold, spent, limit)
        budget_threshold.send_robust(BudgetLedger, ledger=ledger, budget=ledger.budget, threshold=crossing.threshold)
