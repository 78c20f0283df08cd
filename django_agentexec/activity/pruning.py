"""Delete what ended long ago: batch by batch along the primary key, each its own transaction.

Ids are time-ordered, so the oldest rows are at the beginning of the key: no other index is needed, and what is
younger is not read. Called by `prune_activities`, and by whoever wants it on a schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections, transaction
from django.utils import timezone

from ..bulk_sql import can_skip_locked
from ..exceptions import InvalidOption
from ..ids import first_id
from ..models import Activity, ActivityQuerySet
from .store import database

BATCH_SIZE = 1_000
MAX_BATCH_SIZE = 10_000  # rows and their logs that one transaction deletes
_LAST = UUID(int=(1 << 128) - 1)
# Ids and ends come from the clocks of several machines.
_CLOCK_MARGIN = timedelta(hours=1)


def prune(
    older_than: timedelta,
    *,
    batch_size: int = BATCH_SIZE,
    activities: ActivityQuerySet | None = None,
    dry_run: bool = False,
) -> Iterator[int]:
    """Delete activities that ended more than `older_than` ago, with their logs; yield the number of each batch.

    `activities` narrows them down. Never takes one that is queued or running, however old. Children of a deleted
    activity stay, without a parent. `dry_run` counts and deletes nothing. The work is done while you iterate;
    stop when you like. Raises `InvalidOption` at the first step for an impossible age or batch size.
    """
    if not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise InvalidOption(f"A batch size of {batch_size!r} is impossible; give 1 to {MAX_BATCH_SIZE:,}.")
    if older_than < timedelta(0):
        raise InvalidOption(f"An age of {older_than} lies in the future.")
    try:
        cutoff = timezone.now() - older_than
        ranges = _ranges(cutoff)
    except (OverflowError, ValueError) as error:
        raise InvalidOption(f"An age of {older_than} reaches back too far.") from error
    wanted = Activity.objects.all() if activities is None else activities
    wanted = wanted.using(database()).finished().filter(finished_at__lt=cutoff)
    for first, last in ranges:
        for start, end in _batches(first, last, batch_size):
            batch = wanted.filter(agent_id__gt=start, agent_id__lte=end)
            yield batch.count() if dry_run else _delete(batch)


def _ranges(cutoff: datetime) -> list[tuple[UUID, UUID]]:
    """Return the keys that can belong to old rows: those made before, and those that tell of no time.

    `activity.create` takes any id, such as a random one; a clock has made none beyond tomorrow.
    """
    tomorrow = timezone.now() + timedelta(days=1)
    return [(UUID(int=0), first_id(cutoff + _CLOCK_MARGIN)), (first_id(tomorrow), _LAST)]


def _batches(first: UUID, last: UUID, size: int) -> Iterator[tuple[UUID, UUID]]:
    """Yield ranges of `size` rows each, whatever their state, so that no statement looks at more."""
    keys = Activity.objects.using(database()).order_by("agent_id").values_list("agent_id", flat=True)
    while ids := list(keys.filter(agent_id__gt=first, agent_id__lte=last)[:size]):
        yield first, ids[-1]
        first = ids[-1]


def _delete(batch: ActivityQuerySet) -> int:
    """Delete the rows with all that belongs to them, as the models say; return how many activities there were."""
    using = database()
    with transaction.atomic(using=using):
        locked = batch.order_by("agent_id").values_list("agent_id", flat=True)
        if connections[using].features.has_select_for_update:
            # Nobody retries one between the look and the delete. What others have locked is left to the next time.
            locked = locked.select_for_update(skip_locked=can_skip_locked(using))
        ids = list(locked)
        # Only keys are read: contexts and results can be megabytes each.
        Activity.objects.using(using).filter(agent_id__in=ids).only("agent_id").delete()
    return len(ids)
