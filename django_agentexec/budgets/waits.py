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
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Coalesce
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

TOLERANCE = Decimal("1e-9")
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
    now = timezone.now()
    free: dict[UUID, Decimal] = {}
    prices: dict[tuple[str, str], bool] = {}
    ready: list[UUID] = []
    for wait in _candidates(now, ledger_ids)[: 20 * BATCH]:
        if len(ready) < BATCH and _is_ready(wait, free, prices, now):
            ready.append(wait.agent_id)
    resumed = resume(ready)
    if ready:
        _delete_ended(ready)
    return resumed


def sweep() -> int:
    """Resume activities whose budget was deleted, and delete waits that have ended otherwise; return the former."""
    _delete_ended()
    waits = BudgetWait.objects.filter(agent_id=OuterRef("agent_id"))
    waiting = Activity.objects.using(database()).suspended().filter(waiting_for=WaitingFor.BUDGET)
    found = list(waiting.exclude(Exists(waits)).values_list("agent_id", flat=True)[:BATCH])
    return resume(found)


def still_waiting() -> Exists:
    """Return the condition that the activity of a wait waits for a budget."""
    return Exists(Activity.objects.suspended().filter(agent_id=OuterRef("agent_id"), waiting_for=WaitingFor.BUDGET))


def _candidates(now: datetime, ledger_ids: Sequence[UUID]) -> QuerySet[BudgetWait]:
    """Return the waits that may be over, first come, first served; usually none."""
    limit = Coalesce("ledger__own_limit", "ledger__budget__limit")
    # SQLite calculates with floating-point numbers.
    available = limit - F("ledger__spent") - F("ledger__reserved") + Value(TOLERANCE)
    waits = BudgetWait.objects.using(database()).select_related("ledger__budget").order_by("id")
    if ledger_ids:
        waits = waits.filter(ledger_id__in=ledger_ids)
    return waits.filter(
        Q(amount__isnull=True)
        | Q(amount__lte=available)
        | Q(ledger__ends_at__lte=now)
        | Q(ledger__budget__is_active=False)
        | Q(ledger__action="", ledger__budget__action=BudgetAction.NOTIFY)
    )


def _is_ready(wait: BudgetWait, free: dict[UUID, Decimal], prices: dict[tuple[str, str], bool], now: datetime) -> bool:
    """Return whether the ledger covers the call; `free` is what earlier waits have left of each ledger."""
    ledger = wait.ledger
    if ledger.effect == BudgetAction.NOTIFY or ledger.has_ended(now):
        return True
    if wait.amount is None:
        model = wait.model, wait.provider
        if model not in prices:
            prices[model] = ledger.unit == BudgetUnit.TOKENS or rates_of(*model, now) is not None
        return prices[model]
    left = free.setdefault(ledger.pk, ledger.available)
    if wait.amount > left:
        return False
    free[ledger.pk] = left - wait.amount
    return True


def _delete_ended(agent_ids: Sequence[UUID] = ()) -> None:
    """Delete waits, of some activities or of all, whose activity does not wait for a budget any more."""
    waits = BudgetWait.objects.using(database())
    if agent_ids:
        waits = waits.filter(agent_id__in=agent_ids)
    waits.exclude(still_waiting()).delete()
