"""Deletion of old finished activities, in batches along the primary key, each batch in its own transaction.

Ids are ordered by time, so the oldest rows are at the beginning of the key: no other index is needed, and newer rows
are not read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.db import connections, transaction
from django.utils import timezone

from ..blocking import asynchronous, blocking
from ..bulk_sql import can_skip_locked
from ..exceptions import InvalidOption
from ..ids import first_id
from ..models import Activity, ActivityQuerySet
from ..translation import gettext as _
from ..validation import cutoff_of
from .store import database

BATCH_SIZE = 1_000
MAX_BATCH_SIZE = 10_000  # activities deleted in the same transaction, with their logs
_LAST = UUID(int=(1 << 128) - 1)
# Ids and end times come from the clocks of several machines.
_CLOCK_MARGIN = timedelta(hours=1)


@blocking
def prune(
    older_than: float | timedelta,
    *,
    batch_size: int = BATCH_SIZE,
    activities: ActivityQuerySet | None = None,
    dry_run: bool = False,
) -> Iterator[int]:
    """Delete activities that ended more than `older_than` ago, with their logs; yield the number in each batch.

    `older_than` is a timedelta such as `timedelta(days=30)`, or a number of seconds: 0, or at least 3,600, since `30`
    is more often meant as days. `activities` restricts the deletion to these activities. Queued and running
    activities are never deleted. Children of a deleted activity stay, without a parent. With `dry_run` nothing is
    deleted, only counted. Each batch is deleted when the iterator is advanced; the caller may stop at any time. The
    first step raises `InvalidOption` for an age or batch size out of range.
    """
    if not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise InvalidOption(
            _("The batch size %(batch_size)r is out of range: give 1 to %(max_batch_size)s.")
            % {"batch_size": batch_size, "max_batch_size": f"{MAX_BATCH_SIZE:,}"}
        )
    cutoff = cutoff_of(older_than)
    wanted = Activity.objects.all() if activities is None else activities
    wanted = wanted.using(database()).finished().filter(finished_at__lt=cutoff)
    for first, last in _ranges(cutoff):
        for start, end in _batches(first, last, batch_size):
            batch = wanted.filter(agent_id__gt=start, agent_id__lte=end)
            yield batch.count() if dry_run else _delete(batch)


async def aprune(
    older_than: float | timedelta,
    *,
    batch_size: int = BATCH_SIZE,
    activities: ActivityQuerySet | None = None,
    dry_run: bool = False,
) -> AsyncIterator[int]:
    """Async version of `prune`: an asynchronous generator."""
    batches = partial(prune, older_than, batch_size=batch_size, activities=activities, dry_run=dry_run)
    async for number in asynchronous(batches):
        yield number


def _ranges(cutoff: datetime) -> list[tuple[UUID, UUID]]:
    """Return the ranges of ids that old rows can have: ids generated before `cutoff`, and ids without a time.

    `activity.create` accepts any id, such as a random UUID; ids beyond tomorrow come from no clock.
    """
    tomorrow = timezone.now() + timedelta(days=1)
    return [(UUID(int=0), first_id(cutoff + _CLOCK_MARGIN)), (first_id(tomorrow), _LAST)]


def _batches(first: UUID, last: UUID, size: int) -> Iterator[tuple[UUID, UUID]]:
    """Yield ranges of `size` rows each, of any status, so that no statement reads more rows."""
    keys = Activity.objects.using(database()).order_by("agent_id").values_list("agent_id", flat=True)
    while ids := list(keys.filter(agent_id__gt=first, agent_id__lte=last)[:size]):
        yield first, ids[-1]
        first = ids[-1]


def _delete(batch: ActivityQuerySet) -> int:
    """Delete the rows with everything that the models delete with them; return the number of activities."""
    using = database()
    with transaction.atomic(using=using):
        locked = batch.order_by("agent_id").values_list("agent_id", flat=True)
        if connections[using].features.has_select_for_update:
            # No activity can be retried before the delete. Rows that others have locked stay until the next prune.
            locked = locked.select_for_update(skip_locked=can_skip_locked(using))
        ids = list(locked)
        # Reads only the keys: contexts and results can be megabytes each.
        Activity.objects.using(using).filter(agent_id__in=ids).only("agent_id").delete()
    return len(ids)
