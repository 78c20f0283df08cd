"""Suspension: an activity that waits for children or a decision releases its slot, lease and lock, and is resumed once.

    running -> suspended (running, without a worker) -> queued          (Suspend, Resume)

The awaited children are read under the lock of the parent's row. The row stores the last active child
(`blocking_child_id`), so the end of any other child costs a single read of the row. An activity that waits for a
decision (`waiting_for`) and for no child stores its own id there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.translation import ngettext

from ..bulk_sql.fields import Insert, Update
from ..conf import conf, in_site_language
from ..exceptions import InvalidTransition
from ..models import ACTIVE, DECISIONS, Activity, ActivityLog, Approval, ApprovalKind, LineType, Status, WaitingFor
from ..signals import approval_requested
from .log_lines import LOGGED, fill, log
from .transitions import Operation, OwnedOperation


class Suspended(BaseException):
    """Raised to leave a handler whose activity waits; no `Exception`, so that handlers do not catch it.

    It waits for the children `awaited_ids`, and until no approval in `requests` is pending.
    """

    def __init__(
        self,
        awaited_ids: Sequence[UUID],
        fan_out: Mapping[str, Any] | None = None,
        requests: Sequence[Approval] = (),
    ) -> None:
        super().__init__("This handler waits for other activities or a decision; do not catch this exception.")
        self.awaited_ids = list(awaited_ids)
        self.fan_out = dict(fan_out or {})
        self.requests = list(requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend(OwnedOperation):
    """Suspend the attempt until children have ended and approvals are decided, or queue it again at once."""

    update_fields = (
        *(*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes", "fan_out"),
        "waiting_for",
    )
    read_fields = ("discounted_crashes", "fan_out", "waiting_for")
    has_own_signals = True

    awaited_ids: Sequence[UUID]
    fan_out: Mapping[str, Any] = field(default_factory=dict)
    """The children that the next run of the handler must spawn again, by scope: changed parts of `Activity.fan_out`."""
    requests: Sequence[Approval] = ()
    """The approvals that it waits for."""
    new_requests: Sequence[Approval] = ()
    """Those of them that are not stored yet."""

    def prefetch(self, activity: Activity) -> None:
        activity.next_blocking_child_id = _last_active_child(activity, self.awaited_ids) if self.awaited_ids else None
        if activity.next_blocking_child_id is None and self.requests:
            activity.next_blocking_child_id = activity.agent_id

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
        activity.waiting_for = _reason(self.requests) if self.requests else WaitingFor.CHILDREN
        if self.requests:
            return log(activity, _request_text(self.requests), now, type=LineType.APPROVAL)
        count = len(self.awaited_ids)
        activities = in_site_language(ngettext, "%(count)d activity", "%(count)d activities", count) % {"count": count}
        return log(activity, fill(conf.ACTIVITY_MESSAGE_PARKED, activities=activities, count=count), now)

    def related_writes(self, activity: Activity, now: datetime) -> Sequence[Insert | Update]:
        return [Insert(Approval, self.new_requests)] if self.new_requests else []

    def send_signals(self) -> None:
        for approval in self.new_requests:
            approval_requested.send_robust(Approval, approval=approval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Operation):
    """Handle the end of an awaited child, or a decision: if nothing else is awaited, queue the activity again."""

    update_fields = (
        *(*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes"),
        "waiting_for",
    )
    read_fields = (*LOGGED, "awaited_ids", "discounted_crashes", "created_at", "run_after", "waiting_for")

    def prefetch(self, activity: Activity) -> None:
        if not activity.is_suspended:
            return
        awaited_ids = [UUID(child_id) for child_id in activity.awaited_ids or []]
        activity.next_blocking_child_id = _last_active_child(activity, awaited_ids) if awaited_ids else None
        if activity.next_blocking_child_id is None and _awaits_decision(activity):
            activity.next_blocking_child_id = activity.agent_id

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if not activity.is_suspended:
            raise InvalidTransition(f"Activity {self.agent_id} is {activity.status} and not suspended.")
        if activity.next_blocking_child_id is not None:
            activity.blocking_child_id = activity.next_blocking_child_id
            return None
        return _queue_again(activity, now)


def _queue_again(activity: Activity, now: datetime) -> ActivityLog:
    """Queue the row again. Crashes before its wait no longer count, nor does a crash while it was being suspended."""
    text = conf.ACTIVITY_MESSAGE_DECIDED if _is_decision(activity) else conf.ACTIVITY_MESSAGE_WOKEN
    activity.status, activity.awaited_ids, activity.waiting_for = Status.QUEUED, None, ""
    activity.blocking_child_id = activity.blocking_child_id or activity.agent_id  # marks a start that resumes
    activity.discounted_crashes, activity.crashes = activity.crashes + 1, 0
    return log(activity, text, now)


def _is_decision(activity: Activity) -> bool:
    return activity.waiting_for in DECISIONS


def _awaits_decision(activity: Activity) -> bool:
    if not _is_decision(activity):
        return False
    return bool(Approval.objects.using(activity._state.db).of(activity.agent_id).pending().exists())


def _reason(requests: Sequence[Approval]) -> WaitingFor:
    is_question = all(request.kind == ApprovalKind.QUESTION for request in requests)
    return WaitingFor.ANSWER if is_question else WaitingFor.APPROVAL


def _request_text(requests: Sequence[Approval]) -> str:
    tools = ", ".join(dict.fromkeys(request.tool for request in requests))
    template = (
        conf.ACTIVITY_MESSAGE_WAITS_FOR_ANSWER
        if _reason(requests) == WaitingFor.ANSWER
        else conf.ACTIVITY_MESSAGE_WAITS_FOR_APPROVAL
    )
    return fill(template, tools=tools)


def _last_active_child(activity: Activity, awaited_ids: Sequence[UUID]) -> UUID | None:
    """Return the last awaited child that is active, or None."""
    children = Activity.objects.using(activity._state.db).spawned_by(activity.agent_id).filter(status__in=ACTIVE)
    active = set(children.values_list("agent_id", flat=True))
    return next((child_id for child_id in reversed(awaited_ids) if child_id in active), None)
