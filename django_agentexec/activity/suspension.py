"""Suspension: an activity that waits releases its slot, lease and lock, and is resumed once.

    running -> suspended (running, without a worker) -> queued          (Suspend, Resume)
    running -> queued, with a due time                                  (Defer)

The awaited children are read under the lock of the parent's row. The row stores the last active child
(`blocking_child_id`), so the end of any other child costs a single read of the row. An activity that waits for a
decision or a condition (`waiting_for`) and for no child stores its own id there.

A condition, such as a budget, ends at a time (`run_after`) or when `resumption.resume` is called. An activity that also
waits for children or a decision waits for those alone: its handler meets the condition again when it has resumed.

A deferred activity waits for a time that its attempt has chosen, and resumes as the same attempt without using up a
retry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.utils.translation import gettext, ngettext

from ..bulk_sql.fields import Insert, Update
from ..conf import conf, in_site_language
from ..exceptions import InvalidTransition
from ..models import (
    ACTIVE,
    CONDITIONS,
    DECISIONS,
    Activity,
    ActivityLog,
    Approval,
    ApprovalKind,
    LineType,
    Status,
    WaitingFor,
)
from ..signals import approval_requested
from .log_lines import LOGGED, fill, log
from .transitions import Operation, OwnedOperation


@dataclass(frozen=True, slots=True)
class Condition:
    """A reason to wait other than children and decisions."""

    reason: WaitingFor
    """One of `CONDITIONS`."""
    until: datetime | None = None
    """The time at which the activity is resumed; None: when `resume` is called."""
    message: str = ""
    """The log line; by default that of the setting `ACTIVITY_MESSAGE_WAITS`."""
    public_message: str = ""
    """The text for users without the monitor permission; by default they read `message`."""
    record: Model | None = None
    """A new row that is stored with the suspension."""

    def ends_before(self, other: Condition) -> bool:
        """Return whether it ends before another condition."""
        return self.until is not None and (other.until is None or self.until < other.until)


def earliest(conditions: Sequence[Condition]) -> Condition | None:
    """Return the condition that ends first, or None without any."""
    found = None
    for condition in conditions:
        if found is None or condition.ends_before(found):
            found = condition
    return found


class Suspended(BaseException):
    """Raised to leave a handler whose activity waits; no `Exception`, so that handlers do not catch it.

    It waits for the children `awaited_ids`, and until no approval in `requests` is pending; without either, until the
    end of `condition`.
    """

    def __init__(
        self,
        awaited_ids: Sequence[UUID],
        fan_out: Mapping[str, Any] | None = None,
        requests: Sequence[Approval] = (),
        condition: Condition | None = None,
    ) -> None:
        super().__init__(
            "This handler waits for other activities, a decision or a condition; do not catch this exception."
        )
        self.awaited_ids = list(awaited_ids)
        self.fan_out = dict(fan_out or {})
        self.requests = list(requests)
        self.condition = condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend(OwnedOperation):
    """Suspend the attempt until children have ended and approvals are decided, or queue it again at once.

    Without either, until its condition has ended: at `until`, or when `resume` is called.
    """

    update_fields = (
        *(*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes", "fan_out"),
        *("waiting_for", "run_after"),
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
    condition: Condition | None = None

    def prefetch(self, activity: Activity) -> None:
        activity.next_blocking_child_id = _last_active_child(activity, self.awaited_ids) if self.awaited_ids else None
        if activity.next_blocking_child_id is None and (self.requests or self.condition):
            activity.next_blocking_child_id = activity.agent_id

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.is_suspended and activity.fence == self.fence:
            return None  # repeated after a commit without an answer
        self.check_owner(activity)
        if self.fan_out:
            activity.fan_out = {**(activity.fan_out or {}), **self.fan_out}
        if activity.next_blocking_child_id is None:
            return _queue_again(activity, now)
        activity.blocking_child_id, activity.awaited_ids = (
            activity.next_blocking_child_id,
            [str(child_id) for child_id in self.awaited_ids],
        )
        if self.requests:
            activity.waiting_for = _reason(self.requests)
            return log(activity, _request_text(self.requests), now, type=LineType.APPROVAL)
        if self.condition and activity.blocking_child_id == activity.agent_id:
            return _wait_for(self.condition, activity, now)
        activity.waiting_for = WaitingFor.CHILDREN
        count = len(self.awaited_ids)
        text = in_site_language(lambda: ngettext("%(count)d activity", "%(count)d activities", count))
        activities = text % {"count": count}
        return log(activity, fill(conf.ACTIVITY_MESSAGE_PARKED, activities=activities, count=count), now)

    def related_writes(self, activity: Activity, now: datetime) -> Sequence[Insert | Update]:
        if self.new_requests:
            return [Insert(Approval, self.new_requests)]
        record = self.condition.record if self.condition and activity.waiting_for == self.condition.reason else None
        return [Insert(type(record), [record])] if record is not None else []

    def send_signals(self) -> None:
        for approval in self.new_requests:
            approval_requested.send_robust(Approval, approval=approval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Operation):
    """Handle the end of an awaited child, a decision or the end of a condition.

    If nothing else is awaited, queue the activity again.
    """

    update_fields = (
        *(*LOGGED, "status", "blocking_child_id", "awaited_ids", "crashes", "discounted_crashes"),
        *("waiting_for", "run_after"),
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
    text = _resumption_text(activity)
    activity.status, activity.awaited_ids, activity.waiting_for = Status.QUEUED, None, ""
    activity.run_after = None  # the end of its condition: it is due at once
    activity.blocking_child_id = activity.blocking_child_id or activity.agent_id  # marks a start that resumes
    activity.discounted_crashes, activity.crashes = activity.crashes + 1, 0
    return log(activity, text, now)


def _wait_for(condition: Condition, activity: Activity, now: datetime) -> ActivityLog:
    """Let the row wait for a condition, or queue it again if the condition has ended meanwhile."""
    activity.waiting_for = condition.reason
    if condition.until is not None and condition.until <= now:
        return _queue_again(activity, now)
    activity.run_after = condition.until
    if condition.public_message:
        return log(activity, condition.public_message, now, internal_message=condition.message)
    return log(activity, condition.message or waiting_text(condition.reason), now)


def waiting_text(reason: WaitingFor) -> str:
    """Return the default log message of a wait."""
    return fill(conf.ACTIVITY_MESSAGE_WAITS, reason=in_site_language(reason_text, reason))


def reason_text(reason: str) -> str:
    """Return the object of "Waiting for ..." in the current language; children are the default."""
    match reason:
        case WaitingFor.APPROVAL:
            return gettext("an approval")
        case WaitingFor.ANSWER:
            return gettext("an answer")
        case WaitingFor.BUDGET:
            return gettext("a budget")
        case WaitingFor.EVENT:
            return gettext("an event")
        case WaitingFor.LIMIT:
            return gettext("the limit of a provider")
    return gettext("its child activities")


def _resumption_text(activity: Activity) -> str:
    if _is_decision(activity):
        return conf.ACTIVITY_MESSAGE_DECIDED
    return conf.ACTIVITY_MESSAGE_WAITED if activity.waiting_for in CONDITIONS else conf.ACTIVITY_MESSAGE_WOKEN


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


class Deferred(BaseException):
    """Raised to leave a handler for `delay` seconds; no `Exception`, so that handlers do not catch it."""

    def __init__(self, delay: float) -> None:
        super().__init__(f"This attempt resumes in {delay:.1f} s; do not catch this exception.")
        self.delay = delay


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer(OwnedOperation):
    """Suspend the attempt for `delay` seconds; any worker resumes it."""

    update_fields = ("status", "run_after", "blocking_child_id", "updated_at")

    delay: float

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.status, activity.run_after = Status.QUEUED, now + timedelta(seconds=self.delay)
        activity.blocking_child_id = activity.agent_id  # marks a start that resumes the attempt
        activity.updated_at = now
        return None  # the caller has logged the reason
