"""Queries and bulk changes of activities, as methods of `Activity.objects` and of each QuerySet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections, models
from django.db.models import F, Q
from django.utils import timezone

from .choices import ACTIVE, FAILED_OR_CANCELED, FINISHED, Status
from .exceptions import InvalidOption
from .expressions import (
    ActiveFirst,
    JSONHasKeyValue,
    Scalar,
    can_be_in_json,
    metadata_holds,
    parse_candidates,
    same_values,
)

if TYPE_CHECKING:
    from .models import Activity

Method = TypeVar("Method", bound=Callable[..., object])


@dataclass(frozen=True)
class BulkOutcome:
    """The result of a bulk change."""

    done: list[UUID] = field(default_factory=list)
    """Ids of the changed activities."""
    refused: Counter[str] = field(default_factory=Counter)
    """Numbers of refused activities, by reason."""


class BulkActions(Protocol):
    """Bulk changes of activities; `django_agentexec.activity`, the only writer of the rows, provides them."""

    def cancel_many(self, activities: ActivityQuerySet, message: str | None = None) -> BulkOutcome:
        """Cancel the activities that are queued or running."""

    def retry_many(self, activities: ActivityQuerySet, *, fresh: bool = False) -> BulkOutcome:
        """Queue the retryable activities again; with `fresh`, without their recorded calls."""


_bulk_actions: list[BulkActions] = []


def register_bulk_actions(actions: BulkActions) -> None:
    """Set the implementation of `ActivityQuerySet.cancel` and `retry`; called when the app is ready."""
    _bulk_actions[:] = [actions]


def _alters_data(method: Method) -> Method:
    """Mark a method as Django marks `delete`: templates do not call it, and `Activity.objects` does not have it."""
    vars(method).update(alters_data=True, queryset_only=True)
    return method


class ActivityQuerySet(models.QuerySet["Activity"]):
    """Filters, orders and bulk changes of activities."""

    model: type[Activity]

    def active(self) -> ActivityQuerySet:
        """Return the activities that are queued or running."""
        return self.filter(status__in=ACTIVE)

    def finished(self) -> ActivityQuerySet:
        """Return the activities that are complete, in error or canceled."""
        return self.filter(status__in=FINISHED)

    def queued(self) -> ActivityQuerySet:
        """Return the activities that wait for a worker."""
        return self.filter(status=Status.QUEUED)

    def running(self) -> ActivityQuerySet:
        """Return the activities that have started and not ended."""
        return self.filter(status=Status.RUNNING)

    def failed(self) -> ActivityQuerySet:
        """Return the activities that ended in error."""
        return self.filter(status=Status.ERROR)

    def retryable(self) -> ActivityQuerySet:
        """Return the activities that `retry` accepts, as `Activity.is_retryable`."""
        return self.filter(status__in=FAILED_OR_CANCELED).managed()

    def of_type(self, agent_type: str) -> ActivityQuerySet:
        """Return the activities of the task of this name."""
        return self.filter(agent_type=agent_type)

    def due(self, now: datetime | None = None) -> ActivityQuerySet:
        """Return the queued activities whose due time has passed (at `now`, an aware datetime)."""
        return self.queued().filter(Q(run_after=None) | Q(run_after__lte=now or timezone.now()))

    def suspended(self) -> ActivityQuerySet:
        """Return the activities that wait for children, a decision or a condition, without a worker."""
        return self.running().filter(blocking_child_id__isnull=False)

    def exclude_suspended(self) -> ActivityQuerySet:
        """Exclude suspended activities, which are in no queue."""
        return self.exclude(status=Status.RUNNING, blocking_child_id__isnull=False)

    def spawned_by(self, agent_id: UUID) -> ActivityQuerySet:
        """Return the children that this activity has spawned."""
        return self.filter(parent_id=agent_id, spawn_key__isnull=False)

    def managed(self) -> ActivityQuerySet:
        """Return the activities that pass through a queue, without those that their creator drives."""
        return self.exclude(queue="")

    def for_metadata(self, /, **metadata: str | int | float | bool | None) -> ActivityQuerySet:
        """Return the activities whose metadata has all of these values, each under its top-level key.

        Keys are taken literally, so they may come from outside. Raises `InvalidOption` for lists and
        dictionaries, which databases compare in different ways.
        """
        for key, value in metadata.items():
            if not isinstance(value, (str, int, float, type(None))):
                raise InvalidOption(
                    f"Cannot filter by metadata {key}={value!r}: give a string, a number, a boolean or None."
                )
        if not metadata:
            return self
        if not all(can_be_in_json(value) for entry in metadata.items() for value in entry):
            return self.none()
        if self._has_json_containment():
            return self.filter(metadata__contains=metadata)
        return self.filter(*(JSONHasKeyValue("metadata", key, value) for key, value in metadata.items()))

    def for_metadata_text(self, key: str, *texts: str) -> ActivityQuerySet:
        """Return the activities whose metadata has one of `texts` under `key`, as a string or as a JSON literal.

        For typed input: `7` finds the string and the number, `true` the boolean, `null` the null.
        """
        return self._with_any_value(key, [value for text in texts for value in parse_candidates(text)])

    def for_same_metadata(self, /, **metadata: str | int | float | bool | None) -> ActivityQuerySet:
        """Return the activities whose metadata has these values, as strings or as numbers: "1" finds 1, 1 finds "1".

        For values that identify a tenant. None finds nothing.
        """
        found = self
        for key, value in metadata.items():
            found = found._with_any_value(key, same_values(value))
        return found

    def metadata_condition(self, key: str, values: Iterable[Scalar]) -> Q | None:
        """Return the condition that the metadata has one of `values` under `key`, or None if no row can meet it."""
        return metadata_holds(key, values, has_containment=self._has_json_containment())

    def active_first(self) -> ActivityQuerySet:
        """Order active activities before finished activities, each group by creation, the newest first."""
        return self.order_by(ActiveFirst("status").asc(), F("agent_id").desc())

    def without_payloads(self) -> ActivityQuerySet:
        """Defer the columns that no list shows and that can be megabytes; reading such a column costs a query."""
        return self.defer("context", "result", "traceback")

    def bounded_count(self, limit: int) -> int:
        """Return the number of activities, at most `limit`: a count that never reads a million rows."""
        return self.order_by()[:limit].count()

    @_alters_data
    def cancel(self, message: str | None = None) -> BulkOutcome:
        """Cancel the queued and running activities, in transactions of 500, as `activity.cancel_many`."""
        (actions,) = _bulk_actions
        return actions.cancel_many(self.active(), message)

    @_alters_data
    def retry(self, *, fresh: bool = False) -> BulkOutcome:
        """Queue the retryable activities again, in transactions of 500, as `activity.retry_many`."""
        (actions,) = _bulk_actions
        return actions.retry_many(self.retryable(), fresh=fresh)

    @_alters_data
    async def acancel(self, message: str | None = None) -> BulkOutcome:
        """Async version of `cancel`."""
        return await sync_to_async(self.cancel)(message)

    @_alters_data
    async def aretry(self, *, fresh: bool = False) -> BulkOutcome:
        """Async version of `retry`."""
        return await sync_to_async(self.retry)(fresh=fresh)

    def _with_any_value(self, key: str, values: Iterable[Scalar]) -> ActivityQuerySet:
        condition = self.metadata_condition(key, values)
        return self.none() if condition is None else self.filter(condition)

    def _has_json_containment(self) -> bool:
        return bool(connections[self.db].features.supports_json_field_contains)
