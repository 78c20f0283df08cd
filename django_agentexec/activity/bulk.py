"""Cancel and retry for many activities at once, in batches; for the admin, the terminal and `cancel_pending`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction

from ..dispatch.push import push_on_commit, stop_on_commit
from ..exceptions import ActivityNotFound
from ..models import Activity, ActivityQuerySet
from ..validation import validate_metadata
from .store import apply_to_unlocked, database
from .transitions import Cancel, Operation, Retry

BATCH = 500  # rows that are locked together: some 50 ms


@dataclass(frozen=True)
class BulkOutcome:
    """What became of a bulk change."""

    done: list[UUID] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """How many were refused, by reason."""


def cancel_many(activities: ActivityQuerySet, message: str | None = None) -> BulkOutcome:
    """Cancel all of `activities` that are queued or running, each as `cancel` does; one transaction per 500."""
    return _change(activities, lambda agent_id: Cancel(agent_id=agent_id, message=message), stop_on_commit)


def retry_many(activities: ActivityQuerySet) -> BulkOutcome:
    """Queue all of `activities` that are in error or canceled once more, each as `retry` does."""
    return _change(activities, lambda agent_id: Retry(agent_id=agent_id), lambda rows: push_on_commit(rows, again=True))


def cancel_pending(*, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Cancel everything that is queued or running (and has this metadata); return how many were canceled."""
    wanted = Activity.objects.using(database()).active().for_metadata(**validate_metadata(metadata_filter))
    return len(cancel_many(wanted).done)


def _change(
    activities: ActivityQuerySet,
    operation: Callable[[UUID], Operation],
    dispatch: Callable[[list[Activity]], object],
) -> BulkOutcome:
    outcome = BulkOutcome()
    for ids in _batches(activities):
        with transaction.atomic(using=database()):
            applied = apply_to_unlocked([operation(agent_id) for agent_id in ids])
            changed = [row for row in applied if isinstance(row, Activity)]
            dispatch(changed)
        outcome.done.extend(activity.agent_id for activity in changed)
        outcome.refused.update(
            "gone" if isinstance(row, ActivityNotFound) else row.reason
            for row in applied
            if not isinstance(row, Activity)
        )
    return outcome


def _batches(activities: ActivityQuerySet) -> Iterator[Sequence[UUID]]:
    """Yield the ids in order. By the last id, not by offset: what is changed may drop out of the question."""
    wanted = activities.order_by("agent_id").values_list("agent_id", flat=True)
    after = UUID(int=0)
    while ids := list(wanted.filter(agent_id__gt=after)[:BATCH]):
        yield ids
        after = ids[-1]


acancel_pending = sync_to_async(cancel_pending)
acancel_many = sync_to_async(cancel_many)
aretry_many = sync_to_async(retry_many)
