"""Database reads for subscribers: snapshots, and changes since a position. Synchronous; called in threads.

The results have the shapes of `schemas`, ready for JSON and within the limits of `messages`. One read serves many
subscribers; `read_isolated` keeps a failure from affecting more of them than necessary.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from django.db.models import F, Max, Q
from django.db.models.functions import Coalesce, Left, Right

from ..calls.queries import CONTENT, summary_of
from ..concurrency.rules import note_pauses
from ..exceptions import ActivityNotFound
from ..logs import ThrottledLogger
from ..models import ACTIVE, DECISIONS, Activity, ActivityLog, ActivityQuerySet, AgentCall, Approval, Status
from ..schemas import ActivityDetailSchema, ActivityLogSchema
from . import messages
from .call_feed import ReadCall
from .messages import ApprovalChange, Json, Line

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

MAX_LINES = 500  # log lines of one message or response; further lines follow in the next
MIN_LINES = 20  # log lines of each activity in a read of many activities
MAX_IDS = 500  # of one query
MAX_CALLS = 500  # of one read
FEED_SIZE = 100
MAX_APPROVALS = 200  # of one read
# Seconds for single reads after a shared read has failed: enough to find the faulty key if the server is available.
ISOLATION_TIMEOUT = 1.0

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


def read_isolated(read: Callable[[Mapping[K, V]], R], wanted: Mapping[K, V]) -> tuple[list[R], set[K]]:
    """Return the results of `read` for all of `wanted`, and the keys that cannot be read. Never raises.

    If the shared read fails, each key is read alone, for a second; the remaining keys then count as failed.
    """
    try:
        return [read(wanted)], set()
    except Exception as error:  # noqa: BLE001  # any error of a database or a queue
        throttled.warn("Could not read updates for live subscribers.", error)
    found: list[R] = []
    failed = set(wanted)
    deadline = time.monotonic() + ISOLATION_TIMEOUT
    for key, value in wanted.items() if len(wanted) > 1 else ():
        try:
            found.append(read({key: value}))
        except Exception as error:  # noqa: BLE001  # as above
            throttled.warn("Could not read updates for one live subscriber; the others are updated.", error)
        else:
            failed.discard(key)
        if time.monotonic() > deadline:
            break
    return found, failed


@dataclass(slots=True)
class ActivityState:
    """The state of an activity at the time of a read."""

    item: Json
    updated_at: datetime
    is_active: bool
    lines: list[Line] = field(default_factory=list)
    last_log_id: int = 0
    """The newest known line, which may come after `lines`."""
    has_more: bool = False
    """Whether there may be further lines."""
    approvals: list[ApprovalChange] = field(default_factory=list)
    """The approvals of the activity, if it waits for a decision or a client knows a pending one."""

    @property
    def version(self) -> tuple[datetime, str]:
        """When the row was changed, and because of which pause it does not start: a client lacks any other state."""
        return self.updated_at, str(self.item.get("paused", ""))

    def as_of_last_line(self) -> ActivityState:
        """Return the state for a client of the log: a finished activity is active until all lines have been read.

        Not for a feed: it has no lines to wait for, and since `updated_at` is that of the row, it would never accept
        the final status.
        """
        if not self.has_more:
            return self
        return replace(self, item=as_of(self.item, self.lines[-1]) if self.lines else self.item, is_active=True)


def as_of(activity: Json, last: Line) -> Json:
    """Return a finished activity (item or detail) in its state at the line `last`, after which further lines follow.

    A client that stops at a final status has all lines: the status comes with the last of them.
    """
    if activity["status"] in ACTIVE:
        return activity
    status = last.json["status"]
    return {
        **{name: value for name, value in activity.items() if name != "result_url"},
        **{name: value for name, value in (("result", None), ("traceback", "")) if name in activity},
        "status": status if status in ACTIVE else Status.QUEUED.value,  # only a retry follows an end
        "percentage": last.json["percentage"],
        "latest_log_message": last.json["message"],
        "latest_log_timestamp": last.json["created_at"],
        "finished_at": None,
        "error": "",
    }


def read_activity(agent_id: UUID, after: int | None) -> tuple[Json, ActivityState]:
    """Return the detail with its first lines after the line `after`, and the corresponding state. Two queries.

    A third query reads the pauses if the activity is queued. Another reads approvals: those that the activity waits
    for and, for a client that comes back, all others.

    If further lines follow, both show a finished activity in its state at the last line. Raises `ActivityNotFound`.
    """
    activity = Activity.objects.filter(pk=agent_id).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    note_pauses([activity])
    lines, has_more = _lines_after(agent_id, after or 0)
    state = ActivityState(messages.item(activity), activity.updated_at, activity.is_active, lines, has_more=has_more)
    state.last_log_id = lines[-1].id if lines else after or 0
    if after or activity.waiting_for in DECISIONS:
        state.approvals = _approvals([agent_id]).get(agent_id, [])
    detail = messages.detail(activity)
    detail = as_of(detail, lines[-1]) if has_more else detail
    return {**detail, "logs": [line.json for line in lines], "has_more_logs": has_more}, state.as_of_last_line()


def read_detail(activity: Activity, after: int | None) -> tuple[Json, list[Line]]:
    """Return the full detail of a row with its first lines after the line `after`, and these lines. One query.

    For REST: texts and values have their full length.
    """
    # Lines are read after the row, here and below: a client that receives a final status then has all lines.
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
    """Return the detail of a row with the last lines of its log, since many clients use the newest line. One query."""
    newest = ActivityLog.objects.filter(activity_id=activity.agent_id).order_by("-id")[: MAX_LINES + 1]
    found = list(newest)
    lines = [ActivityLogSchema.model_validate(row).model_dump(mode="json") for row in reversed(found[:MAX_LINES])]
    return _detail_of(activity) | {"logs": lines, "has_earlier_logs": len(found) > MAX_LINES}


def read_changes(
    positions: Mapping[UUID, int], items: Mapping[UUID, int], undecided: Collection[UUID] = ()
) -> dict[UUID, ActivityState]:
    """Return the states of the existing activities. Two queries, plus one if the newest line of an item is unknown.

    If any of them is queued, one more reads the pauses.

    `positions`: activities to read with their lines, after these ids; if the lines do not fit into one message, each
    activity costs a query. `items`: activities of feeds, each with its newest known line, or 0.

    `undecided`: activities of which clients know pending approvals. For these, and those that wait for a decision, a
    further query reads the approvals.

    The states are those of the rows; clients of the log need `as_of_last_line`.
    """
    rows = list(Activity.objects.without_payloads().filter(pk__in={*positions, *items}))
    note_pauses(rows)
    states = {row.agent_id: ActivityState(messages.item(row), row.updated_at, row.is_active) for row in rows}
    waiting = {row.agent_id for row in rows if row.waiting_for in DECISIONS} & positions.keys()
    if wanted := {*undecided, *waiting}:
        for agent_id, found in _approvals(wanted).items():
            if agent_id in states:
                states[agent_id].approvals = found
    for agent_id, (lines, has_more) in _new_lines(positions).items():
        if agent_id in states:  # else created between the two queries
            states[agent_id].lines, states[agent_id].has_more = lines, has_more
    _fill_in_last_ids(states, positions, items)
    return states


def read_feed(visible: ActivityQuerySet, seen: Collection[UUID] = ()) -> list[ActivityState]:
    """Return the active activities and the latest finished activities, at most 100, and the states of `seen`.

    One query, one for those of `seen` that are not among them, and one if any activity is queued.
    """
    rows = list(visible.without_payloads().active_first()[:FEED_SIZE])
    missing = set(seen) - {row.agent_id for row in rows}
    if missing:
        rows += visible.without_payloads().filter(pk__in=missing)
    note_pauses(rows)
    return list(_states(rows))


def read_versions(agent_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """Return `updated_at` of each of these activities."""
    versions: dict[UUID, datetime] = {}
    remaining = iter(agent_ids)
    while some := list(islice(remaining, MAX_IDS)):
        versions.update(Activity.objects.filter(pk__in=some).values_list("agent_id", "updated_at"))
    return versions


def read_stored_texts(agent_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the results of these activities that are text: the complete text of their streams."""
    results = Activity.objects.filter(pk__in=agent_ids).values_list("agent_id", "result")
    return {agent_id: result for agent_id, result in results if isinstance(result, str)}


def read_calls(since: Mapping[UUID, datetime]) -> tuple[dict[UUID, list[ReadCall]], bool]:
    """Return the calls that have started or ended since these times, in this order, and whether there may be more.

    One query for all activities, without the content of calls.
    """
    wanted = Q()
    for agent_id, moment in since.items():
        wanted |= Q(activity_id=agent_id, changed_at__gt=moment)
    rows = AgentCall.objects.annotate(
        changed_at=Coalesce("finished_at", "started_at"), current_fence=F("activity__fence")
    ).filter(wanted, set_aside=0)
    found: dict[UUID, list[ReadCall]] = {}
    changed = list(rows.defer(*CONTENT).order_by("changed_at", "id")[: MAX_CALLS + 1]) if since else []
    row: Any  # with the annotations
    for row in changed[:MAX_CALLS]:
        found.setdefault(row.activity_id, []).append(ReadCall(summary_of(row, row.current_fence), row.changed_at))
    return found, len(changed) > MAX_CALLS


def last_log_ids(agent_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the newest line of each of these activities."""
    newest = ActivityLog.objects.filter(activity_id__in=agent_ids).order_by().values_list("activity_id")
    return dict(newest.annotate(newest=Max("id")))


def _approvals(agent_ids: Collection[UUID]) -> dict[UUID, list[ApprovalChange]]:
    """Return the latest approvals of these activities, in the order of the requests. One query."""
    rows = Approval.objects.filter(activity_id__in=agent_ids, set_aside=0).order_by("-id")[:MAX_APPROVALS]
    found: dict[UUID, list[ApprovalChange]] = {}
    for row in reversed(rows):
        found.setdefault(row.activity_id, []).append(messages.approval_change(row))
    return found


def _new_lines(positions: Mapping[UUID, int]) -> dict[UUID, tuple[list[Line], bool]]:
    """Return the first lines after each position, and whether further lines follow.

    One query for all; if the lines exceed one message, a separate query for each activity reads its share, so that a
    subscriber that is far behind does not delay the others.
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
    """Return the first lines of an activity after a position, and whether further lines follow.

    At most as many lines as fit into a message, divided by `share`.
    """
    most, largest = max(MAX_LINES // share, min(MIN_LINES, MAX_LINES)), messages.MAX_LINES_SIZE // share
    found = [line for _, line in _lines(Q(activity_id=agent_id, id__gt=position), most + 1)]
    count, size = 0, 0
    while count < min(most, len(found)) and (count == 0 or size + found[count].size <= largest):
        size += found[count].size
        count += 1
    return found[:count], count < len(found)


def _lines(wanted: Q, most: int) -> list[tuple[UUID, Line]]:
    """Return the first lines, with texts cut by the database to the limits of a message: a row may hold megabytes."""
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


def _states(rows: Iterable[Activity]) -> Iterator[ActivityState]:
    """Yield the states of all valid rows: a row with invalid values must not hide the others."""
    for row in rows:
        try:
            yield ActivityState(messages.item(row), row.updated_at, row.is_active)
        except ValueError as error:
            throttled.warn("Left out an activity with invalid values.", ValueError(f"{row.agent_id}: {error}"))


def _fill_in_last_ids(
    states: Mapping[UUID, ActivityState], positions: Mapping[UUID, int], items: Mapping[UUID, int]
) -> None:
    unknown = [agent_id for agent_id in states if agent_id not in positions and not items.get(agent_id)]
    looked_up = last_log_ids(unknown) if unknown else {}
    for agent_id, state in states.items():
        read = state.lines[-1].id if state.lines else positions.get(agent_id, 0)
        state.last_log_id = max(read, items.get(agent_id, 0), looked_up.get(agent_id, 0))
