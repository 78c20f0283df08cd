"""The announcement of thresholds: the signal `budget_threshold` and a record in the log, once per threshold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..calls.operations import FinishCall
from ..models import Activity, BudgetLedger
from ..signals import activities_changed, budget_threshold
from .charges import Crossing

logger = logging.getLogger(__name__)


def announce(crossings: Sequence[Crossing]) -> None:
    """Send the signal for each threshold, and log it."""
    for crossing in crossings:
        ledger = crossing.ledger
        logger.warning(
            "Budget %s has reached %d %%: %s of %s %s are spent.",
            ledger,
            crossing.threshold,
            ledger.spent,
            ledger.limit,
            ledger.unit,
        )
        budget_threshold.send_robust(BudgetLedger, ledger=ledger, budget=ledger.budget, threshold=crossing.threshold)


def install() -> None:
    """Announce the thresholds that calls reach; called when the app is ready."""
    activities_changed.connect(_on_changes, Activity, dispatch_uid="agentexec.budget_thresholds")


def _on_changes(changes: Sequence[Any], **signal: Any) -> None:
    for _activity, _line, operation in changes:
        if isinstance(operation, FinishCall) and operation.charge is not None:
            announce(operation.charge.crossings)
