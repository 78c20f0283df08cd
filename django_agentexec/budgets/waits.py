"""The duties of pools: reservations end with their attempt, and activities resume when their budget covers their call.

Any number of pools may run them at the same time: ledgers are changed under their locks, and the second of two
resumptions of an activity has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from ..activity.resumption import resume
from ..activity.store import database
from ..costs.prices import rates_of
from ..models import (
    Activity,
    BudgetAction,
    BudgetLedger,
    BudgetReservation,
    BudgetUnit,
    BudgetWait,
    Status,
    WaitingFor,
)
from .charges import CHANGED_FIELDS, locked_ledgers

logger = logging.getLogger(__name__)

BATCH = 500  # reservations that are released together, and activities that are resumed together


def release_stale(ledger_ids: Sequence[UUID] = ()) -> int:
    """Release reservations whose attempt no longer runs, of some ledgers or of all; return their number.

    The worker died, the activity was canceled, or another attempt has started. A call that ends all the same is counted
    when its end is written.
    """
    using = database()
    running = Activity.objects.filter(
        agent_id=OuterRef("agent_id"), status=Status.RUNNING, blocking_child_id__isnull=True, fence=OuterRef("fence")
    )
    stale = BudgetReservation.objects.using(using).exclude(Exists(running))
    if ledger_ids:
        stale = stale.filter(ledger_id__in=ledger_ids)
    found = list(stale.order_by("id").values_list("id", "ledger_id")[:BATCH])
    if not found:
        return 0
    with transaction.atomic(using=using):
        ledgers = locked_ledgers({ledger_id for _, ledger_id in found}, using)
        # Read again under the locks: the call may have ended meanwhile.
        rows = list(BudgetReservation.objects.using(using).filter(pk__in=[pk for pk, _ in found]))
        for row in rows:
            if ledger := ledgers.get(row.ledger_id):
                ledger.reserved = max(Decimal(0), ledger.reserved - row.amount)
        BudgetLedger.objects.using(using).bulk_update(ledgers.values(), CHANGED_FIELDS)
        BudgetReservation.objects.using(using).filter(pk__in=[row.pk for row in rows]).delete()
    return len(rows)


def resume_waiting(ledger_ids: Sequence[UUID] = ()) -> int:
    """Resume activities whose budget, one of some ledgers or of all, covers their next call; return their number.

    In the order of their suspension, and no more than the budget covers: the rest would be suspended again at once.
    """
    using = database()
    waits = BudgetWait.objects.using(using).select_related("ledger__budget").order_by("id")
    if ledger_ids:
        waits = waits.filter(ledger_id__in=ledger_ids)
    now = timezone.now()
    free: dict[UUID, Decimal] = {}
    ready: list[BudgetWait] = []
    for wait in waits[: 20 * BATCH]:
        if len(ready) < BATCH and _is_ready(wait, free, now):
            ready.append(wait)
    resumed = resume([wait.agent_id for wait in ready])
    _delete_ended(using)
    return resumed


def resume_without_wait() -> int:
    """Resume activities that wait for a budget which was deleted."""
    using = database()
    waits = BudgetWait.objects.filter(agent_id=OuterRef("agent_id"))
    waiting = Activity.objects.using(using).suspended().filter(waiting_for=WaitingFor.BUDGET).exclude(Exists(waits))
    found = list(waiting.values_list("agent_id", flat=True)[:BATCH])
    return resume(found) if found else 0


def _is_ready(wait: BudgetWait, free: dict[UUID, Decimal], now: datetime) -> bool:
    """Whether the ledger covers the call; `free` is what earlier waits have left of each ledger."""
    ledger = wait.ledger
    if ledger.effect == BudgetAction.NOTIFY or ledger.has_ended(now):
        return True
    if wait.amount is None:
        return ledger.unit == BudgetUnit.TOKENS or rates_of(wait.model, wait.provider, now) is not None
    left = free.setdefault(ledger.pk, ledger.available)
    if wait.amount > left:
        return False
    free[ledger.pk] = left - wait.amount
    return True


def _delete_ended(using: str) -> None:
    """Delete waits whose activity does not wait for a budget any more."""
    waiting = Activity.objects.filter(agent_id=OuterRef("agent_id"), waiting_for=WaitingFor.BUDGET)
    BudgetWait.objects.using(using).exclude(Exists(waiting)).delete()
