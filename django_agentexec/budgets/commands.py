"""Changes of limits. What waits for a raised limit is resumed at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction

from ..activity.store import database
from ..blocking import blocking
from ..exceptions import InvalidOption, QueueUnavailable
from ..models import BUDGET_THRESHOLDS, Budget, BudgetLedger
from .charges import CHANGED_FIELDS, locked_ledgers
from .options import checked_limit
from .waits import resume_waiting

logger = logging.getLogger(__name__)

MAX_LEDGERS = 1_000  # that a change of a limit updates at once; they differ only in what they have announced


@blocking
def set_limit(budget: Budget, limit: Decimal | int | str) -> None:
    """Set the limit of a budget from now on, and resume the activities that it covers now.

    Raises `InvalidOption` for an amount that is negative or cannot be stored, and for the consumption of a budget.
    """
    if not isinstance(budget, Budget):
        raise InvalidOption(
            f"set_limit({budget!r}) needs a Budget; the limit of one period or run, also of a budget in code, is set "
            "by set_limit_of_period, with a BudgetLedger."
        )
    budget.limit = checked_limit(limit)
    budget.save(using=database(), update_fields=["limit"])
    limit_changed(budget)


async def aset_limit(budget: Budget, limit: Decimal | int | str) -> None:
    """Async version of `set_limit`."""
    await sync_to_async(set_limit)(budget, limit)


@blocking
def set_limit_of_period(ledger: BudgetLedger, limit: Decimal | int | str | None) -> None:
    """Set the limit of one period or run, or with None that of its budget; otherwise as `set_limit`."""
    if limit is None and ledger.budget_id is None:
        raise InvalidOption(f"Code declares the budget {ledger}, so it needs a limit.")
    using = database()
    with transaction.atomic(using=using):
        row = locked_ledgers([ledger.pk], using)[ledger.pk]
        row.own_limit = ledger.own_limit = None if limit is None else checked_limit(limit)
        _lower_announced(row)
        row.save(using=using, update_fields=["own_limit", *CHANGED_FIELDS])
        _resume_on_commit([ledger.pk], using)


async def aset_limit_of_period(ledger: BudgetLedger, limit: Decimal | int | str | None) -> None:
    """Async version of `set_limit_of_period`."""
    await sync_to_async(set_limit_of_period)(ledger, limit)


def limit_changed(budget: Budget) -> None:
    """Let thresholds be announced again that are not reached any more, and resume what the budget covers now."""
    using = database()
    with transaction.atomic(using=using):
        announced = BudgetLedger.objects.using(using).filter(budget=budget, notified__gt=0).order_by("-created_at")
        ledgers = locked_ledgers(announced.values_list("pk", flat=True)[:MAX_LEDGERS], using)
        for ledger in ledgers.values():
            _lower_announced(ledger)
        BudgetLedger.objects.using(using).bulk_update(ledgers.values(), ["notified"])
        waited_for = BudgetLedger.objects.using(using).filter(budget=budget, waits__isnull=False).distinct()
        _resume_on_commit(list(waited_for.values_list("pk", flat=True)), using)


def _lower_announced(ledger: BudgetLedger) -> None:
    reached = [each for each in BUDGET_THRESHOLDS if each <= ledger.percentage]
    ledger.notified = min(ledger.notified, max(reached, default=0))


def _resume_on_commit(ledger_ids: Sequence[UUID], using: str) -> None:
    if ledger_ids:
        transaction.on_commit(partial(_resume, ledger_ids), using=using, robust=True)


def _resume(ledger_ids: Sequence[UUID]) -> None:
    try:
        resume_waiting(ledger_ids)
    except QueueUnavailable as error:
        logger.warning("%s The activities are queued; the reconciler of a pool pushes them later.", error)
