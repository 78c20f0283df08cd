"""Queries that return activities as the schemas of the wire format (`django_agentexec.schemas`)."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from ..blocking import blocking
from ..concurrency.rules import note_pauses
from ..conf import conf
from ..exceptions import ActivityNotFound, InvalidOption
from ..models import Activity, ActivityQuerySet
from ..schemas import ActivityDetailSchema, ActivityListItemSchema, ActivityListSchema
from ..validation import validate_id, validate_metadata

MAX_PAGE_SIZE = 1_000
MAX_PAGE = 10**12  # with the largest page size still within a database's 64-bit offset


@blocking
def list(page: int = 1, page_size: int = 50, metadata_filter: Mapping[str, Any] | None = None) -> ActivityListSchema:
    """Return one page (from 1) of activities, active ones first, then the newest.

    `total` is counted up to `AGENTEXEC["COUNT_LIMIT"]`. Raises `InvalidOption` for a page below 1 or a page
    size outside 1 to 1,000. Two queries.
    """
    if not 1 <= page <= MAX_PAGE:
        raise InvalidOption(f"The page {page!r} is out of range: give 1 to {MAX_PAGE:,}.")
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidOption(f"The page size {page_size!r} is out of range: give 1 to {MAX_PAGE_SIZE}.")
    return page_of(_filtered(metadata_filter).active_first(), page, page_size)


async def alist(
    page: int = 1, page_size: int = 50, metadata_filter: Mapping[str, Any] | None = None
) -> ActivityListSchema:
    """Async version of `list`."""
    return await sync_to_async(list)(page, page_size, metadata_filter)


def page_of(wanted: ActivityQuerySet, page: int, page_size: int) -> ActivityListSchema:
    """Return one page of `wanted`, in the order of the QuerySet. Two queries, and one if any activity is queued."""
    first = (page - 1) * page_size
    rows = builtins.list(wanted.without_payloads()[first : first + page_size])
    note_pauses(rows)
    items: builtins.list[ActivityListItemSchema] = [ActivityListItemSchema.model_validate(row) for row in rows]
    total = wanted.bounded_count(conf.COUNT_LIMIT + 1)
    return ActivityListSchema(
        items=items,
        total=min(total, conf.COUNT_LIMIT),
        total_is_bounded=total > conf.COUNT_LIMIT,
        page=page,
        page_size=page_size,
    )


@blocking
def detail(agent_id: UUID, metadata_filter: Mapping[str, Any] | None = None) -> ActivityDetailSchema:
    """Return an activity with its complete log. Two queries, and one if it is queued in a queue.

    Raises `ActivityNotFound` if no activity has this id and this metadata.
    """
    activity = _filtered(metadata_filter).prefetch_related("logs").filter(agent_id=validate_id(agent_id)).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    note_pauses([activity])
    return ActivityDetailSchema.model_validate(activity)


async def adetail(agent_id: UUID, metadata_filter: Mapping[str, Any] | None = None) -> ActivityDetailSchema:
    """Async version of `detail`."""
    return await sync_to_async(detail)(agent_id, metadata_filter)


@blocking
def count_active(metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Return the number of queued and running activities. One query."""
    return _filtered(metadata_filter).active().count()


async def acount_active(metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Async version of `count_active`."""
    return await sync_to_async(count_active)(metadata_filter)


def _filtered(metadata_filter: Mapping[str, Any] | None) -> ActivityQuerySet:
    return Activity.objects.all().for_metadata(**validate_metadata(metadata_filter))
