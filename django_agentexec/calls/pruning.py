"""Deletion of old calls, in batches along the primary key, each batch in its own transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.db import connections, transaction

from ..activity.store import database
from ..blocking import asynchronous, blocking
from ..bulk_sql import can_skip_locked
from ..ids import first_id
from ..models import Activity, AgentCall
from ..validation import cutoff_of
from .setting_aside import set_aside_decisions

BATCH_SIZE = 1_000  # calls that are examined at once
MAX_ACTIVITIES = 100  # whose calls are deleted in the same transaction
# Ids and end times come from the clocks of several machines.
_CLOCK_MARGIN = timedelta(hours=1)


@blocking
def prune_calls(older_than: float | timedelta, *, batch_size: int = BATCH_SIZE, dry_run: bool = False) -> Iterator[int]:
    """Delete the calls of activities that ended more than `older_than` ago; yield the number in each batch.

    The activities stay, with their usage and cost. All calls of an activity are deleted together, so a retry never
    finds a part of them; it makes them again, and asks for approvals again. Each batch is deleted when the iterator is
    advanced. `older_than` is that of `activity.prune`. The first step raises `InvalidOption` for an age out of range.
    """
    cutoff = cutoff_of(older_than)
    end = first_id(cutoff + _CLOCK_MARGIN)
    old = Activity.objects.using(database()).finished().filter(finished_at__lt=cutoff)
    keys = AgentCall.objects.using(database()).order_by("id").filter(id__lt=end)
    position = UUID(int=0)
    while rows := list(keys.filter(id__gt=position).values_list("id", "activity_id")[:batch_size]):
        position = rows[-1][0]
        ids = list(dict.fromkeys(activity_id for _, activity_id in rows))
        for start in range(0, len(ids), MAX_ACTIVITIES):
            part = old.filter(agent_id__in=ids[start : start + MAX_ACTIVITIES])
            yield (
                AgentCall.objects.using(database()).filter(activity__in=part, id__in=[call for call, _ in rows]).count()
                if dry_run
                else _delete(list(part.values_list("agent_id", flat=True)))
            )


async def aprune_calls(
    older_than: float | timedelta, *, batch_size: int = BATCH_SIZE, dry_run: bool = False
) -> AsyncIterator[int]:
    """Async version of `prune_calls`: an asynchronous generator."""
    async for number in asynchronous(partial(prune_calls, older_than, batch_size=batch_size, dry_run=dry_run)):
        yield number


def _delete(candidates: Sequence[UUID]) -> int:
    """Delete all calls of these activities, unless they have been queued again in the meantime."""
    if not candidates:
        return 0
    using = database()
    with transaction.atomic(using=using):
        locked = Activity.objects.using(using).finished().filter(agent_id__in=candidates).order_by("agent_id")
        ids = locked.values_list("agent_id", flat=True)
        if connections[using].features.has_select_for_update:
            ids = ids.select_for_update(skip_locked=can_skip_locked(using))
        found = list(ids)
        number, _ = AgentCall.objects.using(using).filter(activity_id__in=found).order_by().delete()
        # A retry makes the calls again, and the model may give another call the id for which there is a decision.
        set_aside_decisions(found, using)
    return number
