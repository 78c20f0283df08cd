"""What followers read from the database: snapshots, and what changed since. Sync; the hub calls it in threads.

All shapes are those of `schemas`, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Max, Q

from ..exceptions import ActivityNotFound
from ..models import Activity, ActivityLog, ActivityQuerySet
from ..schemas import ActivityDetailSchema, ActivityListItemSchema, ActivityLogSchema

Json = dict[str, Any]

MOST_LINES = 500  # of one message or response; further ones follow in the next
FEED_SIZE = 100


@dataclass(frozen=True, slots=True)
class Line:
    """A log line: its id, and the line as JSON."""

    id: int
    json: Json


@dataclass(slots=True)
class State:
    """An activity as it was read."""

    item: Json
    updated_at: datetime
    is_active: bool
    lines: list[Line] = field(default_factory=list)
    last_log_id: int = 0
    has_more: bool = False
    """Whether there may be lines after these."""


def read_activity(agent_id: UUID, after: int | None) -> tuple[Json, State]:
    """Return the detail with its first lines after the line `after`, and the same as a state. Two queries.

    Raises `ActivityNotFound`.
    """
    activity = Activity.objects.filter(pk=agent_id).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    detail, lines = read_detail(activity, after)
    state = State(_item(activity), activity.updated_at, activity.is_active, lines, has_more=detail["has_more_logs"])
    state.last_log_id = lines[-1].id if lines else after or 0
    return detail, state


def read_detail(activity: Activity, after: int | None) -> tuple[Json, list[Line]]:
    """Return the detail of a row with its first lines after the line `after`, and these lines. One query."""
    # After the row, here and below: who is told that an activity has ended has all of its lines.
    found, has_more = _lines(Q(activity_id=activity.agent_id, id__gt=after or 0))
    lines = [line for _, line in found]
    detail = _detail_of(activity) | {"logs": [line.json for line in lines], "has_more_logs": has_more}
    return detail, lines


def _detail_of(activity: Activity) -> Json:
    columns = ActivityDetailSchema.model_fields.keys() - {"logs", "has_more_logs", "has_earlier_logs"}
    values = {name: getattr(activity, name) for name in columns}
    detail: Json = ActivityDetailSchema.model_validate(values).model_dump(mode="json")
    return detail


def read_latest(activity: Activity) -> Json:
    """Return the detail of a row with the last lines of its log: many clients look at the newest one. One query."""
    newest = ActivityLog.objects.filter(activity_id=activity.agent_id).order_by("-id")[: MOST_LINES + 1]
    found = list(newest)
    lines = [ActivityLogSchema.model_validate(row).model_dump(mode="json") for row in reversed(found[:MOST_LINES])]
    return _detail_of(activity) | {"logs": lines, "has_earlier_logs": len(found) > MOST_LINES}


def read_changes(positions: Mapping[UUID, int], items: Mapping[UUID, int]) -> dict[UUID, State]:
    """Return the state of all these activities that exist. Two queries, plus one where a position is unknown.

    `positions`: activities whose lines are wanted, after these ids. `items`: activities of feeds, each with its
    newest line as far as known, or 0.
    """
    rows = Activity.objects.light().filter(pk__in={*positions, *items})
    states = {row.agent_id: State(_item(row), row.updated_at, row.is_active) for row in rows}
    if positions:
        wanted = Q()
        for agent_id, position in positions.items():
            wanted |= Q(activity_id=agent_id, id__gt=position)
        found, has_more = _lines(wanted)
        for agent_id in positions.keys() & states.keys():
            states[agent_id].has_more = has_more
        for agent_id, line in found:
            if agent_id in states:  # else created, or found again, between the two queries
                states[agent_id].lines.append(line)
    _fill_in_last_ids(states, positions, items)
    return states


def read_feed(visible: ActivityQuerySet, seen: Collection[UUID] = ()) -> list[State]:
    """Return the active activities and the latest finished ones, 100 at most, and what became of those `seen`."""
    rows = list(visible.light().active_first()[:FEED_SIZE])
    missing = set(seen) - {row.agent_id for row in rows}
    if missing:
        rows += visible.light().filter(pk__in=missing)
    return [State(_item(row), row.updated_at, row.is_active) for row in rows]


def read_versions(agent_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """Return when each of these activities was changed last."""
    return dict(Activity.objects.filter(pk__in=agent_ids).values_list("agent_id", "updated_at"))


def last_log_ids(agent_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the newest line of each of these activities."""
    newest = ActivityLog.objects.filter(activity_id__in=agent_ids).order_by().values_list("activity_id")
    return dict(newest.annotate(newest=Max("id")))


def _lines(wanted: Q) -> tuple[list[tuple[UUID, Line]], bool]:
    rows = list(ActivityLog.objects.filter(wanted).order_by("id")[: MOST_LINES + 1])
    found = [
        (row.activity_id, Line(row.id, ActivityLogSchema.model_validate(row).model_dump(mode="json")))
        for row in rows[:MOST_LINES]
    ]
    return found, len(rows) > MOST_LINES


def _item(row: Activity) -> Json:
    return ActivityListItemSchema.model_validate(row).model_dump(mode="json")


def _fill_in_last_ids(states: Mapping[UUID, State], positions: Mapping[UUID, int], items: Mapping[UUID, int]) -> None:
    unknown = [agent_id for agent_id in states if agent_id not in positions and not items.get(agent_id)]
    looked_up = last_log_ids(unknown) if unknown else {}
    for agent_id, state in states.items():
        if state.lines:
            state.last_log_id = state.lines[-1].id
        else:
            known = positions.get(agent_id, 0), items.get(agent_id, 0), looked_up.get(agent_id, 0)
            state.last_log_id = max(known)
