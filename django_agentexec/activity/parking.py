"""Parking: an activity that waits for others gives up its slot, its lease and its lock, and is woken once.

    running -> parked (running, without a worker) -> queued          (Park, Wake)

Whether those that it waits for have ended is looked up under the lock of its own row. The last of them is
noted, so that the ends of the others cost one look at the row each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from ..conf import conf
from ..exceptions import InvalidTransition
from ..models import ACTIVE, Activity, ActivityLog, Status
from .operations import LOGGED, Operation, OwnedOperation, fill, log


class Parked(BaseException):
    """Raised inside a handler to leave it: its activity waits for others. No `except Exception` may stop it."""

    def __init__(self, awaited: Sequence[UUID], fan_out: Mapping[str, Any] | None = None) -> None:
        super().__init__("This handler waits for other activities; let it pass.")
        self.awaited = list(awaited)
        self.fan_out = dict(fan_out or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Park(OwnedOperation):
    """The attempt waits for the end of children. If all have ended meanwhile, it is queued again at once."""

    writes = (*LOGGED, "status", "waiting_for", "awaited", "crashes", "forgiven", "fan_out")
    reads = ("forgiven", "fan_out")

    awaited: Sequence[UUID]
    fan_out: Mapping[str, Any] = field(default_factory=dict)
    """What the next run of the handler must spawn again, by scope: the parts of `Activity.fan_out` that change."""

    def look_up(self, activity: Activity) -> None:
        activity.last_awaited = _last_active(activity, self.awaited)

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.is_parked and activity.fence == self.fence:
            return None  # the same write again, after a commit whose answer was lost
        self.check_owner(activity)
        if self.fan_out:
            activity.fan_out = {**(activity.fan_out or {}), **self.fan_out}
        if activity.last_awaited is None:
            activity.waiting_for = activity.agent_id  # nobody in particular: it only goes on
            return _wake(activity, now)
        activity.waiting_for, activity.awaited = activity.last_awaited, [str(one) for one in self.awaited]
        count = len(self.awaited)
        number = f"{count} activities" if count > 1 else "1 activity"
        return log(activity, fill(conf.ACTIVITY_MESSAGE_PARKED, activities=number, count=count), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake(Operation):
    """One of those it waited for has ended. If it was the last one, the activity is queued again."""

    writes = (*LOGGED, "status", "waiting_for", "awaited", "crashes", "forgiven")
    reads = (*LOGGED, "awaited", "forgiven", "created_at", "run_after")

    def look_up(self, activity: Activity) -> None:
        if activity.is_parked:
            activity.last_awaited = _last_active(activity, [UUID(one) for one in activity.awaited or []])

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if not activity.is_parked:
            raise InvalidTransition(f"Activity {self.agent_id} is {activity.status} and does not wait.")
        if activity.last_awaited is not None:
            activity.waiting_for = activity.last_awaited
            return None
        return _wake(activity, now)


def _wake(activity: Activity, now: datetime) -> ActivityLog:
    """Queue the row again. What crashed before its wait counts no more, nor does a crash on the way into it."""
    activity.status, activity.awaited = Status.QUEUED, None
    activity.forgiven, activity.crashes = activity.crashes + 1, 0
    return log(activity, conf.ACTIVITY_MESSAGE_WOKEN, now)


def _last_active(activity: Activity, awaited: Sequence[UUID]) -> UUID | None:
    """Return the last one of the awaited children that has not ended, or None."""
    children = Activity.objects.using(activity._state.db).spawned_by(activity.agent_id).filter(status__in=ACTIVE)
    active = set(children.values_list("agent_id", flat=True))
    return next((one for one in reversed(awaited) if one in active), None)
