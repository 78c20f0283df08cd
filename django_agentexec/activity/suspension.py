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
from .transitions import LOGGED, Operation, OwnedOperation, fill, log


class Suspended(BaseException):
    """Raised inside a handler to leave it: its activity waits for others. No `except Exception` may stop it."""

    def __init__(self, awaited_ids: Sequence[UUID], fan_out: Mapping[str, Any] | None = None) -> None:
        super().__init__("This handler waits for other activities; let it pass.")
        self.awaited_ids = list(awaited_ids)
        self.fan_out = dict(fan_out or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend(OwnedOperation):
    """The attempt waits for the end of children. If all have ended meanwhile, it is queued again at once."""

    update_fields = (*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes", "fan_out")
    read_fields = ("discounted_crashes", "fan_out")

    awaited_ids: Sequence[UUID]
    fan_out: Mapping[str, Any] = field(default_factory=dict)
    """What the next run of the handler must spawn again, by scope: the parts of `Activity.fan_out` that change."""

    def prefetch(self, activity: Activity) -> None:
        activity.next_blocking_child_id = _last_active_child(activity, self.awaited_ids)

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.is_suspended and activity.fence == self.fence:
            return None  # the same write again, after a commit whose answer was lost
        self.check_owner(activity)
        if self.fan_out:
            activity.fan_out = {**(activity.fan_out or {}), **self.fan_out}
        if activity.next_blocking_child_id is None:
            activity.blocking_child_id = activity.agent_id  # nobody in particular: it only goes on
            return _wake(activity, now)
        activity.blocking_child_id, activity.awaited_ids = (
            activity.next_blocking_child_id,
            [str(one) for one in self.awaited_ids],
        )
        count = len(self.awaited_ids)
        number = f"{count} activities" if count > 1 else "1 activity"
        return log(activity, fill(conf.ACTIVITY_MESSAGE_PARKED, activities=number, count=count), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Operation):
    """One of those it waited for has ended. If it was the last one, the activity is queued again."""

    update_fields = (*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes")
    read_fields = (*LOGGED, "awaited_ids", "discounted_crashes", "created_at", "run_after")

    def prefetch(self, activity: Activity) -> None:
        if activity.is_suspended:
            activity.next_blocking_child_id = _last_active_child(
                activity, [UUID(one) for one in activity.awaited_ids or []]
            )

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if not activity.is_suspended:
            raise InvalidTransition(f"Activity {self.agent_id} is {activity.status} and does not wait.")
        if activity.next_blocking_child_id is not None:
            activity.blocking_child_id = activity.next_blocking_child_id
            return None
        return _wake(activity, now)


def _wake(activity: Activity, now: datetime) -> ActivityLog:
    """Queue the row again. What crashed before its wait counts no more, nor does a crash on the way into it."""
    activity.status, activity.awaited_ids = Status.QUEUED, None
    activity.discounted_crashes, activity.crashes = activity.crashes + 1, 0
    return log(activity, conf.ACTIVITY_MESSAGE_WOKEN, now)


def _last_active_child(activity: Activity, awaited_ids: Sequence[UUID]) -> UUID | None:
    """Return the last one of the awaited children that has not ended, or None."""
    children = Activity.objects.using(activity._state.db).spawned_by(activity.agent_id).filter(status__in=ACTIVE)
    active = set(children.values_list("agent_id", flat=True))
    return next((one for one in reversed(awaited_ids) if one in active), None)
