"""Prices for calls that had none when they ended, since a price has been set in the meantime."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce

from ..activity.store import database
from ..blocking import asynchronous, blocking
from ..models import Activity, AgentCall, CallQuerySet
from .prices import cost_of

BATCH_SIZE = 500


@blocking
def reprice(calls: CallQuerySet | None = None, *, batch_size: int = BATCH_SIZE) -> Iterator[tuple[int, int]]:
    """Set the cost of calls without a price, and add it to their activities; yield (examined, priced) per batch.

    Each batch is a transaction. A call whose cost is known already is left as it is.
    """
    using = database()
    unpriced = (AgentCall.objects.all() if calls is None else calls).using(using).unpriced().order_by("id")
    fields = ("id", "activity_id", "name", "provider", "started_at", "input_tokens", "cached_tokens", "output_tokens")
    last: UUID | None = None
    while batch := list((unpriced.filter(id__gt=last) if last else unpriced).only(*fields)[:batch_size]):
        last = batch[-1].pk
        priced = [(call, cost) for call in batch if (cost := cost_of(call)) is not None]
        yield len(batch), _write(priced, using)


async def areprice(
    calls: CallQuerySet | None = None, *, batch_size: int = BATCH_SIZE
) -> AsyncIterator[tuple[int, int]]:
    """Async version of `reprice`: an asynchronous generator."""
    async for numbers in asynchronous(partial(reprice, calls, batch_size=batch_size)):
        yield numbers


def _write(priced: list[tuple[AgentCall, Decimal]], using: str) -> int:
    if not priced:
        return 0
    written = 0
    with transaction.atomic(using=using):
        # Locked first and in the order of ids, as workers lock them: a call is priced once, and no batch deadlocks.
        owners = Activity.objects.using(using).filter(pk__in={call.activity_id for call, _ in priced})
        list(owners.order_by("pk").select_for_update().values_list("pk"))
        added: dict[UUID, Decimal] = defaultdict(Decimal)
        for call, cost in priced:
            if AgentCall.objects.using(using).filter(pk=call.pk, cost__isnull=True).update(cost=cost):
                added[call.activity_id] += cost
                written += 1
        for agent_id, cost in added.items():
            total = Coalesce(F("cost"), Value(Decimal(0), output_field=Activity._meta.get_field("cost")))
            Activity.objects.using(using).filter(pk=agent_id).update(cost=total + cost)
    return written
