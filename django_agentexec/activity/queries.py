"""Questions about activities that answer in the wire's shapes (`django_agentexec.schemas`)."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from ..conf import conf
from ..exceptions import ActivityNotFound, InvalidOption
from ..models import Activity, ActivityQuerySet
from ..schemas import ActivityDetailSchema, ActivityListItemSchema, ActivityListSchema
from ..validation import validate_id, validate_metadata

MAX_PAGE_SIZE = 1_000
MAX_PAGE = 10**12  # with the largest page size still within a database's 64-bit offset


def list(page: int = 1, page_size: int = 50, metadata_filter: Mapping[str, Any] | None = None) -> ActivityListSchema:
    """Return one page (from 1) of activities, active ones first, then the newest.

    `total` is counted up to `AGENTEXEC["COUNT_LIMIT"]`. Raises `InvalidOption` for a page below 1 or a page
    size outside of 1 to 1,000. Two queries.
    """
    if not 1 <= page <= MAX_PAGE:
        raise InvalidOption(f"There is no page {page!r}; give 1 to {MAX_PAGE:,}.")
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidOption(f"A page size of {page_size!r} is impossible; give 1 to {MAX_PAGE_SIZE}.")
    return page_of(_filtered(metadata_filter).active_first(), page, page_size)


def page_of(wanted: ActivityQuerySet, page: int, page_size: int) -> ActivityListSchema:
    """Return one page of `wanted`, in its own order. Two queries."""
    first = (page - 1) * page_size
    rows = wanted.without_payloads()[first : first + page_size]
    items: builtins.list[ActivityListItemSchema] = [ActivityListItemSchema.model_validate(row) for row in rows]
    total = wanted.bounded_count(conf.COUNT_LIMIT + 1)
    return ActivityListSchema(
        items=items,
        total=min(total, conf.COUNT_LIMIT),
        total_is_bounded=total > conf.COUNT_LIMIT,
        page=page,
        page_size=page_size,
    )


def detail(agent_id: UUID, metadata_filter: Mapping[str, Any] | None = None) -> ActivityDetailSchema:
    """Return an activity with its whole log. Two queries.

    Raises `ActivityNotFound` if there is none, or none with this metadata.
    """
    activity = _filtered(metadata_filter).prefetch_related("logs").filter(agent_id=validate_id(agent_id)).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    return ActivityDetailSchema.model_validate(activity)


def count_active(metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Return how many activities are queued or running. One query."""
    return _filtered(metadata_filter).active().count()


def _filtered(metadata_filter: Mapping[str, Any] | None) -> ActivityQuerySet:
    return Activity.objects.all().for_metadata(**validate_metadata(metadata_filter))


alist = sync_to_async(list)
adetail = sync_to_async(detail)
acount_active = sync_to_async(count_active)
