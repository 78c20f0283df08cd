"""Suspension: an activity that waits for its children releases its slot, lease and lock, and is resumed once.

    running -> suspended (running, without a worker) -> queued          (Suspend, Resume)

The awaited children are read under the lock of the parent's row. The row stores the last active child
(`blocking_child_id`), so the end of any other child costs a single read of the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.translation import ngettext

from ..conf import conf, in_site_language
from ..exceptions import InvalidTransition
from ..models import ACTIVE, Activity, ActivityLog, Status
from .log_lines import LOGGED, fill, log
from .transitions import Operation, OwnedOperation


class Suspended(BaseException):
    """Raised to leave a handler whose activity waits for children; no `Exception`, so that handlers do not catch it."""

    def __init__(self, awaited_ids: Sequence[UUID], fan_out: Mapping[str, Any] | None = None) -> None:
        super().__init__("This handler waits for other activities; do not catch this exception.")
        self.awaited_ids = list(awaited_ids)
        self.fan_out = dict(fan_out or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend(OwnedOperation):
    """Suspend the attempt until children have ended, or queue it again at once if all of them have ended."""

    update_fields = (*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes", "fan_out")
    read_fields = ("discounted_crashes", "fan_out")

    awaited_ids: Sequence[UUID]
    fan_out: Mapping[str, Any] = field(default_factory=dict)
    """The children that the next run of the handler must spawn again, by scope: changed parts of `Activity.fan_out`."""

    def prefetch(self, activity: Activity) -> None:
        activity.next_blocking_child_id = _last_active_child(activity, self.awaited_ids)

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.is_suspended and activity.fence == self.fence:
            return None  # repeated after a commit without an answer
        self.check_owner(activity)
        if self.fan_out:
            activity.fan_out = {**(activity.fan_out or {}), **self.fan_out}
        if activity.next_blocking_child_id is None:
            activity.blocking_child_id = activity.agent_id  # marks a start that resumes the attempt
            return _queue_again(activity, now)
        activity.blocking_child_id, activity.awaited_ids = (
            activity.next_blocking_child_id,
            [str(child_id) for child_id in self.awaited_ids],
        )
        count = len(self.awaited_ids)
        activities = in_site_language(ngettext, "%(count)d activity", "%(count)d activities", count) % {"count": count}
        return log(activity, fill(conf.ACTIVITY_MESSAGE_PARKED, activities=activities, count=count), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Operation):
    """Handle the end of an awaited child: after the last child, queue the activity again."""

    update_fields = (*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes")
    read_fields = (*LOGGED, "awaited_ids", "discounted_crashes", "created_at", "run_after")

    def prefetch(self, activity: Activity) -> None:
        if activity.is_suspended:
            activity.next_blocking_child_id = _last_active_child(
                activity, [UUID(child_id) for child_id in activity.awaited_ids or []]
            )

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if not activity.is_suspended:
            raise InvalidTransition(f"Activity {self.agent_id} is {activity.status} and not suspended.")
        if activity.next_blocking_child_id is not None:
            activity.blocking_child_id = activity.next_blocking_child_id
            return None
        return _queue_again(activity, now)


def _queue_again(activity: Activity, now: datetime) -> ActivityLog:
    """Queue the row again. Crashes before its wait no longer count, nor does a crash while it was being suspended."""
    activity.status, activity.awaited_ids = Status.QUEUED, None
    activity.discounted_crashes, activity.crashes = activity.crashes + 1, 0
    return log(activity, conf.ACTIVITY_MESSAGE_WOKEN, now)


def _last_active_child(activity: Activity, awaited_ids: Sequence[UUID]) -> UUID | None:
    """Return the last awaited child that is active, or None."""
    children = Activity.objects.using(activity._state.db).spawned_by(activity.agent_id).filter(status__in=ACTIVE)
    active = set(children.values_list("agent_id", flat=True))
    return next((child_id for child_id in reversed(awaited_ids) if child_id in active), None)
