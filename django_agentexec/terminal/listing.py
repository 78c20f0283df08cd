"""`agents list`: the activities that match, active ones first."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..conf import conf
from ..models import ActivityQuerySet
from ..schemas import ActivityListItemSchema, ActivityListSchema
from .command import OK, Output
from .durations import positive
from .selection import add_filters, selected
from .text import age

HELP = "list activities, active ones first"
HEADER = ["id", "status", "%", "task", "age", "message"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare filters and options."""
    add_filters(parser)
    parser.add_argument("--limit", type=positive, default=50, metavar="N", help="at most so many (50)")
    parser.add_argument("--json", action="store_true", help="the shape of REST's list")


def run(out: Output, options: dict[str, Any]) -> int:
    """Write the list."""
    page = listed(selected(options), options["limit"])
    if options["json"]:
        out.json(page)
        return OK
    if page.items:
        out.table(HEADER, [row(item) for item in page.items], right="%")
    total = f"at least {page.total:,}" if page.total_is_bounded else f"{page.total:,}"
    out.note(f"{len(page.items)} of {total} shown." if page.items else "No activity matches.")
    return OK


def listed(activities: ActivityQuerySet, limit: int) -> ActivityListSchema:
    """Return the first `limit` of `activities` as a page; two queries."""
    items = [ActivityListItemSchema.model_validate(one) for one in activities.without_payloads().active_first()[:limit]]
    total = activities.bounded_count(conf.COUNT_LIMIT + 1)
    return ActivityListSchema(
        items=items,
        total=min(total, conf.COUNT_LIMIT),
        total_is_bounded=total > conf.COUNT_LIMIT,
        page=1,
        page_size=limit,
    )


def row(item: ActivityListItemSchema) -> list[object]:
    """Return the columns of `HEADER`."""
    since = (timezone.now() - item.created_at).total_seconds()
    message = item.error or item.latest_log_message or ""
    return [item.agent_id, item.status, item.percentage, item.agent_type, age(since), message]
