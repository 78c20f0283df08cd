"""Cancel and retry for many activities at once, in batches, and the texts of refusals.

The reasons of refusals are keys of JSON; pages and terminals show their texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from ..blocking import blocking
from ..dispatch.push import push_on_commit, stop_on_commit
from ..exceptions import ActivityNotFound
from ..models import Activity, ActivityQuerySet
from ..querysets import BulkOutcome, register_bulk_actions
from ..validation import validate_metadata
from .rerun import Retry
from .store import apply_to_unlocked, database
from .transitions import Cancel, Operation

__all__ = [
    "NOT_PERMITTED",
    "BulkOutcome",
    "acancel_many",
    "acancel_pending",
    "aretry_many",
    "cancel_many",
    "cancel_pending",
    "install",
    "reason_text",
    "retry_many",
]

ROWS_PER_TRANSACTION = 500  # locked together for about 50 ms
NOT_PERMITTED = "not permitted"
_REASONS: dict[str, Promise] = {
    NOT_PERMITTED: _("not permitted"),
    "locked by another transaction": _("locked by another transaction"),
    "still queued": _("still queued"),
    "still running": _("still running"),
    "already complete": _("already complete"),
    "already error": _("already failed"),
    "already canceled": _("already canceled"),
    "never queued, driven by its creator": _("never queued, driven by its creator"),
    "its parent has failed or was canceled; retry the parent": _(
        "its parent has failed or was canceled; retry the parent"
    ),
}


@blocking
def cancel_many(activities: ActivityQuerySet, message: str | None = None) -> BulkOutcome:
    """Cancel all of `activities` that are queued or running, each as `cancel` does; one transaction per 500."""
    return _change(activities, lambda agent_id: Cancel(agent_id=agent_id, message=message), stop_on_commit)


async def acancel_many(activities: ActivityQuerySet, message: str | None = None) -> BulkOutcome:
    """Async version of `cancel_many`."""
    return await sync_to_async(cancel_many)(activities, message)


@blocking
def retry_many(activities: ActivityQuerySet, *, fresh: bool = False) -> BulkOutcome:
    """Queue all of `activities` that are retryable again, each as `retry` does; one transaction per 500."""
    return _change(
        activities,
        lambda agent_id: Retry(agent_id=agent_id, fresh=fresh),
        lambda rows: push_on_commit(rows, requeue_running=True),
    )


async def aretry_many(activities: ActivityQuerySet, *, fresh: bool = False) -> BulkOutcome:
    """Async version of `retry_many`."""
    return await sync_to_async(retry_many)(activities, fresh=fresh)


@blocking
def cancel_pending(*, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Cancel all queued and running activities (with this metadata); return the number of canceled activities."""
    wanted = Activity.objects.using(database()).active().for_metadata(**validate_metadata(metadata_filter))
    return len(cancel_many(wanted).done)


async def acancel_pending(*, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Async version of `cancel_pending`."""
    return await sync_to_async(cancel_pending)(metadata_filter=metadata_filter)


def reason_text(reason: str) -> str:
    """Return the reason of a refusal in the current language."""
    return str(_REASONS.get(reason, reason))


def install() -> None:
    """Provide `ActivityQuerySet.cancel` and `retry`; called when the app is ready."""
    register_bulk_actions(_BulkActions())


class _BulkActions:
    cancel_many = staticmethod(cancel_many)
    retry_many = staticmethod(retry_many)


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
    """Yield the ids in order, by the last id instead of an offset: a changed row may no longer match the query."""
    wanted = activities.order_by("agent_id").values_list("agent_id", flat=True)
    after = UUID(int=0)
    while ids := list(wanted.filter(agent_id__gt=after)[:ROWS_PER_TRANSACTION]):
        yield ids
        after = ids[-1]
