"""Database reads for subscribers: snapshots, and changes since a position. Synchronous; called in threads.

The results have the shapes of `schemas`, ready for JSON and within the limits of `messages`. One read serves many
subscribers; `read_isolated` keeps a failure from affecting more of them than necessary.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db.models import Max, Q
from django.db.models.functions import Left, Right

from ..concurrency.rules import note_pauses
from ..exceptions import ActivityNotFound
from ..logs import ThrottledLogger
from ..models import ACTIVE, DECISIONS, Activity, ActivityLog, ActivityQuerySet, Approval, Status
from ..policy import get_policy
from ..schemas import ActivityLogSchema
from . import messages
from .messages import ApprovalChange, Json, Line

if TYPE_CHECKING:
    from .subscriptions import FeedSubscription

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

MAX_LINES = 500  # log lines of one message or response; further lines follow in the next
MIN_LINES = 20  # log lines of each activity in a read of many activities
MAX_IDS = 500  # of one query
FEED_SIZE = 100
MAX_APPROVALS = 200  # of one read
# Seconds for single reads after a shared read has failed: enough to find the faulty key if the server is available.
ISOLATION_TIMEOUT = 1.0

_ROWS = Activity.objects.without_payloads()
_LINE_COLUMNS = ActivityLogSchema.model_fields.keys() - {"message", "traceback"}  # the database cuts these

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
    lines: list[Line] = field(default_factory=list)
    last_log_id: int = 0
    """The newest known line, which may come after `lines`."""
    has_more: bool = False
    """Whether there may be further lines."""
    approvals: list[ApprovalChange] = field(default_factory=list)
    """The approvals of the activity, if it waits for a decision or a client knows a pending one."""
    is_active: bool = field(init=False)
    """Whether `item` is queued or running."""
    version: tuple[datetime, str] = field(init=False)
    """When the row was changed, and because of which pause it does not start: a client lacks any other state."""

    def __post_init__(self) -> None:
        self.is_active = self.item["status"] in ACTIVE
        self.version = self.updated_at, str(self.item.get("paused", ""))

    def as_of_last_line(self) -> ActivityState:
        """Return the state for a client of the log: a finished activity is active until all lines have been read.

        Not for a feed: it has no lines to wait for, and since `updated_at` is that of the row, it would never accept
        the final status.
        """
        return replace(self, item=as_of(self.item, self.lines[-1])) if self.has_more else self


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
    _note_pauses([activity])
    lines, has_more = _lines_after(agent_id, after or 0)
    state = _state(activity)
    state.lines, state.has_more = lines, has_more
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
    lines = [Line(row.id, ActivityLogSchema.json_of(row), 0) for row in rows[:MAX_LINES]]
    return messages.full_detail(activity) | {"logs": [line.json for line in lines], "has_more_logs": has_more}, lines


def read_latest(activity: Activity) -> Json:
    """Return the detail of a row with the last lines of its log, since many clients use the newest line. One query."""
    newest = ActivityLog.objects.filter(activity_id=activity.agent_id).order_by("-id")[: MAX_LINES + 1]
    found = list(newest)
    lines = [ActivityLogSchema.json_of(row) for row in reversed(found[:MAX_LINES])]
    return messages.full_detail(activity) | {"logs": lines, "has_earlier_logs": len(found) > MAX_LINES}


def read_states(
    positions: Mapping[UUID, int], items: Mapping[UUID, int], undecided: Set[UUID] = frozenset()
) -> tuple[dict[UUID, ActivityState], set[UUID]]:
    """Return the states as `read_changes`, and the activities that cannot be read. Never raises."""

    def read(wanted: Mapping[UUID, object]) -> dict[UUID, ActivityState]:
        return read_changes(
            {agent_id: position for agent_id, position in positions.items() if agent_id in wanted},
            {agent_id: newest for agent_id, newest in items.items() if agent_id in wanted},
            undecided & wanted.keys(),
        )

    found, failed = read_isolated(read, dict.fromkeys([*items, *positions]))
    return {agent_id: state for states in found for agent_id, state in states.items()}, failed


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
    rows = list(_ROWS.filter(pk__in={*positions, *items}))
    _note_pauses(rows)
    states = {row.agent_id: _state(row) for row in rows}
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
    _note_pauses(rows)
    return list(_states(rows))


def read_feeds(subscriptions: Sequence[FeedSubscription]) -> list[tuple[FeedSubscription, list[ActivityState]]]:
    """Return the states that are new to the clients of these feeds; leave out the feeds that cannot be read.

    Each feed is read once for all users with the same view (the same SQL).
    """
    by_view: dict[str, list[FeedSubscription]] = {}
    views: dict[str, ActivityQuerySet] = {}
    policy = get_policy()
    for each in subscriptions:
        try:
            visible = policy.visible(each.user, Activity.objects.all())
            view = "" if visible.query.is_empty() else repr(visible.query.sql_with_params())
        except Exception as error:  # noqa: BLE001  # any error of a project's policy for this user
            throttled.warn("Could not read the feed of one user; the others are updated.", error)
            continue
        by_view.setdefault(view, []).append(each)
        views[view] = visible
    found, _ = read_isolated(lambda wanted: _read_views(views, wanted), by_view)
    return [pair for pairs in found for pair in pairs]


def _read_views(
    views: Mapping[str, ActivityQuerySet], by_view: Mapping[str, list[FeedSubscription]]
) -> list[tuple[FeedSubscription, list[ActivityState]]]:
    found: list[tuple[FeedSubscription, list[ActivityState]]] = []
    for view, group in by_view.items():
        states = read_feed(views[view], {agent_id for each in group for agent_id in each.active})
        changed = [state for state in states if not all(each.has_seen(state) for each in group)]
        newest = last_log_ids([UUID(state.item["agent_id"]) for state in changed]) if changed else {}
        for state in changed:
            state.last_log_id = newest.get(UUID(state.item["agent_id"]), 0)
        found += [(each, changed) for each in group]
    return found


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
    values = {name: getattr(row, name) for name in _LINE_COLUMNS}
    return ActivityLogSchema.json_of({**values, "message": row.shown, "traceback": row.last_calls})


def _note_pauses(rows: Iterable[Activity]) -> None:
    """Set `paused` of the queued activities that a pause holds; one query if there are queued activities."""
    if queued := [row for row in rows if row.status == Status.QUEUED]:
        note_pauses(queued)


def _state(row: Activity) -> ActivityState:
    return ActivityState(messages.item(row), row.updated_at)


def _states(rows: Iterable[Activity]) -> Iterator[ActivityState]:
    """Yield the states of all valid rows: a row with invalid values must not hide the others."""
    for row in rows:
        try:
            yield _state(row)
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
