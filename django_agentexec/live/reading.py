"""What followers read from the database: snapshots, and what changed since. Sync; the hub calls it in threads.

All shapes are those of `schemas`, ready for JSON and within the bounds of `wire`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import Max, Q
from django.db.models.functions import Left, Right

from ..exceptions import ActivityNotFound
from ..models import Activity, ActivityLog, ActivityQuerySet
from ..schemas import ActivityDetailSchema, ActivityLogSchema
from ..throttled_logging import ThrottledLogger
from . import messages
from .messages import Json, Line

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

MAX_LINES = 500  # of one message or response; further ones follow in the next
FEWEST_LINES = 20  # that each of many activities gets from one reading
MAX_IDS = 500  # of one query
FEED_SIZE = 100


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

    def hold_back_end(self) -> None:
        """Show an ended activity as active until its last lines are read, too."""
        if self.has_more:
            self.is_active = True
            self.item = messages.as_of(self.item, self.lines[-1]) if self.lines else self.item


def read_activity(agent_id: UUID, after: int | None) -> tuple[Json, State]:
    """Return the detail with its first lines after the line `after`, and the same as a state. Two queries.

    With further lines to follow, both show an ended activity as it was at the last of these. Raises `ActivityNotFound`.
    """
    activity = Activity.objects.filter(pk=agent_id).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    lines, has_more = _lines_after(agent_id, after or 0)
    state = State(messages.item(activity), activity.updated_at, activity.is_active, lines, has_more=has_more)
    state.last_log_id = lines[-1].id if lines else after or 0
    state.hold_back_end()
    detail = messages.detail(activity)
    detail = messages.as_of(detail, lines[-1]) if has_more else detail
    return {**detail, "logs": [line.json for line in lines], "has_more_logs": has_more}, state


def read_detail(activity: Activity, after: int | None) -> tuple[Json, list[Line]]:
    """Return the full detail of a row with its first lines after the line `after`, and these lines. One query.

    For REST: nothing is cut.
    """
    # After the row, here and below: who is told that an activity has ended has all of its lines.
    rows = list(activity.logs.filter(id__gt=after or 0).order_by("id")[: MAX_LINES + 1])
    has_more = len(rows) > MAX_LINES
    lines = [Line(row.id, ActivityLogSchema.model_validate(row).model_dump(mode="json"), 0) for row in rows[:MAX_LINES]]
    return _detail_of(activity) | {"logs": [line.json for line in lines], "has_more_logs": has_more}, lines


def _detail_of(activity: Activity) -> Json:
    columns = ActivityDetailSchema.model_fields.keys() - {"logs", "has_more_logs", "has_earlier_logs"}
    values = {name: getattr(activity, name) for name in columns}
    detail: Json = ActivityDetailSchema.model_validate(values).model_dump(mode="json")
    return detail


def read_latest(activity: Activity) -> Json:
    """Return the detail of a row with the last lines of its log: many clients look at the newest one. One query."""
    newest = ActivityLog.objects.filter(activity_id=activity.agent_id).order_by("-id")[: MAX_LINES + 1]
    found = list(newest)
    lines = [ActivityLogSchema.model_validate(row).model_dump(mode="json") for row in reversed(found[:MAX_LINES])]
    return _detail_of(activity) | {"logs": lines, "has_earlier_logs": len(found) > MAX_LINES}


def read_changes(positions: Mapping[UUID, int], items: Mapping[UUID, int]) -> dict[UUID, State]:
    """Return the state of all these activities that exist. Two queries, plus one where a position is unknown.

    `positions`: activities whose lines are wanted, after these ids; more lines than a message has cost a query for
    each. `items`: activities of feeds, each with its newest line as far as known, or 0.
    """
    rows = Activity.objects.without_payloads().filter(pk__in={*positions, *items})
    states = {row.agent_id: State(messages.item(row), row.updated_at, row.is_active) for row in rows}
    for agent_id, (lines, has_more) in _new_lines(positions).items():
        if agent_id in states:  # else created, or found again, between the two queries
            states[agent_id].lines, states[agent_id].has_more = lines, has_more
            states[agent_id].hold_back_end()
    _fill_in_last_ids(states, positions, items)
    return states


def read_feed(visible: ActivityQuerySet, seen: Collection[UUID] = ()) -> list[State]:
    """Return the active activities and the latest finished ones, 100 at most, and what became of those `seen`."""
    rows = list(visible.without_payloads().active_first()[:FEED_SIZE])
    missing = set(seen) - {row.agent_id for row in rows}
    if missing:
        rows += visible.without_payloads().filter(pk__in=missing)
    return list(_states(rows))


def read_versions(agent_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """Return when each of these activities was changed last."""
    versions: dict[UUID, datetime] = {}
    remaining = iter(agent_ids)
    while some := list(islice(remaining, MAX_IDS)):
        versions.update(Activity.objects.filter(pk__in=some).values_list("agent_id", "updated_at"))
    return versions


def read_stored_texts(agent_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the results of these activities that are text: what their streams were for."""
    results = Activity.objects.filter(pk__in=agent_ids).values_list("agent_id", "result")
    return {agent_id: result for agent_id, result in results if isinstance(result, str)}


def last_log_ids(agent_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the newest line of each of these activities."""
    newest = ActivityLog.objects.filter(activity_id__in=agent_ids).order_by().values_list("activity_id")
    return dict(newest.annotate(newest=Max("id")))


def _new_lines(positions: Mapping[UUID, int]) -> dict[UUID, tuple[list[Line], bool]]:
    """Return the first lines after each position, and whether further ones follow.

    One query for all; if that is not enough for all lines, each activity gets its share of a message by a query of its
    own, so that a follower that is far behind does not delay the others.
    """
    if len(positions) == 1:
        return {agent_id: _lines_after(agent_id, position) for agent_id, position in positions.items()}
    wanted = Q()
    for agent_id, position in positions.items():
        wanted |= Q(activity_id=agent_id, id__gt=position)
    found = _lines(wanted, MAX_LINES + 1) if positions else []
    if len(found) > MAX_LINES or sum(line.size for _, line in found) > messages.MAX_LINES_SIZE:
        share = len(positions)
        return {agent_id: _lines_after(agent_id, position, share) for agent_id, position in positions.items()}
    lines: dict[UUID, tuple[list[Line], bool]] = {agent_id: ([], False) for agent_id in positions}
    for agent_id, line in found:
        lines[agent_id][0].append(line)
    return lines


def _lines_after(agent_id: UUID, position: int, share: int = 1) -> tuple[list[Line], bool]:
    """Return the first lines of an activity after a position, and whether further ones follow.

    At most as many as make a message; with a `share`, only that part of it.
    """
    most, largest = max(MAX_LINES // share, min(FEWEST_LINES, MAX_LINES)), messages.MAX_LINES_SIZE // share
    found = [line for _, line in _lines(Q(activity_id=agent_id, id__gt=position), most + 1)]
    count, size = 0, 0
    while count < min(most, len(found)) and (count == 0 or size + found[count].size <= largest):
        size += found[count].size
        count += 1
    return found[:count], count < len(found)


def _lines(wanted: Q, most: int) -> list[tuple[UUID, Line]]:
    """Return the first lines, cut to what a message has of each: a row may hold megabytes."""
    rows = ActivityLog.objects.filter(wanted).order_by("id").defer("message", "traceback")
    rows = rows.annotate(
        shown=Left("message", messages.MAX_TEXT + 1),
        last_calls=Right("traceback", messages.MAX_TRACEBACK + 1),
    )
    return [(row.activity_id, messages.line(_line_fields(row))) for row in rows[:most]]


def _line_fields(row: Any) -> Json:
    names = ActivityLogSchema.model_fields.keys() - {"message", "traceback"}
    values = {name: getattr(row, name) for name in names}
    return ActivityLogSchema(**values, message=row.shown, traceback=row.last_calls).model_dump(mode="json")


def _states(rows: Iterable[Activity]) -> Iterator[State]:
    """Yield the states of all rows that can be read: one with impossible values must not hide the others."""
    for row in rows:
        try:
            yield State(messages.item(row), row.updated_at, row.is_active)
        except ValueError as error:
            throttled.warn("Activities that cannot be read are left out.", ValueError(f"{row.agent_id}: {error}"))


def _fill_in_last_ids(states: Mapping[UUID, State], positions: Mapping[UUID, int], items: Mapping[UUID, int]) -> None:
    unknown = [agent_id for agent_id in states if agent_id not in positions and not items.get(agent_id)]
    looked_up = last_log_ids(unknown) if unknown else {}
    for agent_id, state in states.items():
        if state.lines:
            state.last_log_id = state.lines[-1].id
        else:
            known = positions.get(agent_id, 0), items.get(agent_id, 0), looked_up.get(agent_id, 0)
            state.last_log_id = max(known)
