"""The state machine of an activity: every change of its row is a value with an `apply` method.

    queued -> running -> complete | error | canceled        (Start, Complete, Fail, Cancel)
    running -> queued                                        (Fail with a retry left, Release)
    queued -> canceled, error | canceled -> queued           (Cancel, Retry)

`apply` changes a locked row in memory and returns its log line. A transition that is not allowed raises
`InvalidTransition`, and an outdated fence `StaleAttempt`. `apply` does not access the database, so every rule can be
tested by itself; the few operations that need more than their row override `prefetch` or `save_related`.

`suspension` and `deferral` define the transitions of activities that wait, `rerun` defines `Retry` and `Rerun`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import Q

from ..budgets.charges import Charge
from ..bulk_sql.fields import Insert, Update
from ..choices import DECISIONS
from ..concurrency.table import table as rules
from ..conf import conf
from ..exceptions import HeldBack, InvalidTransition, StaleAttempt
from ..models import (
    ACTIVE,
    Activity,
    ActivityLog,
    AgentCall,
    Approval,
    ApprovalStatus,
    CallState,
    Conversation,
    LineType,
    Status,
    StepRun,
    StepState,
)
from ..translation import gettext as _
from ..validation import storable_text
from .log_lines import LOGGED, delay_text, fill, log, log_error, message_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(ABC):
    """A change of one activity."""

    agent_id: UUID
    may_wait: bool = False
    """Whether a worker may delay it by some milliseconds, so that the writes that follow share its transaction."""
    charge: Charge | None = None
    """What the change reserves or settles in budgets, whose ledgers are locked for it."""
    update_fields: ClassVar[tuple[str, ...]]
    """The fields that `apply` may change."""
    read_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that `apply` or its caller reads in addition to `store.READ_FIELDS`."""
    acts_after_commit: ClassVar[bool] = False
    """Whether `after_commit` does anything."""

    @abstractmethod
    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        """Change `activity` in memory; return the log line of the change, or None."""

    def prefetch(self, activity: Activity) -> None:  # noqa: B027  # optional hook
        """Read what `apply` needs from other rows, and set it on the locked row; costs a query in rare operations."""

    def related_writes(self, activity: Activity, now: datetime) -> Sequence[Insert | Update]:
        """Return new and changed rows of other models, with their keys; written in bulk with those of the batch."""
        return ()

    @property
    def has_own_signals(self) -> bool:
        """Whether `send_signals` sends any."""
        return False

    def save_related(self, activity: Activity, now: datetime) -> None:  # noqa: B027  # optional hook
        """Write other rows that belong to the change, after `apply` and in the same transaction."""

    def after_commit(self, activity: Activity) -> None:  # noqa: B027  # optional hook
        """Act on the commit, in the thread that has committed, so in microseconds; with `acts_after_commit`."""

    def send_signals(self) -> None:  # noqa: B027  # optional hook
        """Send the signals of this operation, which follow those of every change; with `has_own_signals`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOfWait(Operation):
    """A change after which the activity no longer waits for a decision: its pending approvals become void."""

    def save_related(self, activity: Activity, now: datetime) -> None:
        if activity.ended_wait:
            void_pending(activity, now)


def void_pending(activity: Activity, now: datetime, path: Q | None = None) -> None:
    """Make the pending approvals of a locked row void, all or those at these paths."""
    pending = Approval.objects.using(activity._state.db).filter(
        path or Q(), activity_id=activity.agent_id, status=ApprovalStatus.PENDING
    )
    pending.update(status=ApprovalStatus.VOID, decided_at=now)


def end_wait(activity: Activity) -> None:
    """Let the activity wait for nothing, and note whether it has waited for a decision."""
    activity.ended_wait = activity.waiting_for in DECISIONS
    activity.waiting_for = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Operation):
    """Start an attempt under `fence`. Starting a running activity is the recovery of a crash.

    After a suspension or deferral it resumes the same attempt instead of starting another. The percentage remains if
    the attempt replays recorded calls or finished steps; otherwise it begins at 0.
    """

    update_fields: ClassVar[tuple[str, ...]] = (
        *LOGGED,
        "status",
        "fence",
        "worker",
        "crashes",
        "attempt",
        "percentage",
        "started_at",
        "run_after",
        "blocking_child_id",
    )

    read_fields: ClassVar[tuple[str, ...]] = (
        *("context", "run_after", "latest_log_timestamp", "metadata", "enqueued_by"),
        *("conversation", "traceparent"),
    )

    fence: int
    worker: str
    crashes: int
    limit_keys: Collection[str] = ()
    """The keys of the limits that its claim counts against."""

    def prefetch(self, activity: Activity) -> None:
        if activity.status == Status.QUEUED:  # a running activity continues after a crash
            missing = rules.missing_keys(activity, self.limit_keys)
            if missing:
                raise HeldBack(f"Activity {self.agent_id} is paused or limited.", missing)
        if activity.conversation_id is not None:
            conversations = Conversation.objects.using(activity._state.db).filter(pk=activity.conversation_id)
            activity.session_id = conversations.values_list("session_id", flat=True).first()
        # No query for a first attempt.
        activity.is_replayed = activity.percentage > 0 and activity.blocking_child_id is None and has_record(activity)

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if self.fence < activity.fence:
            raise StaleAttempt(f"Activity {self.agent_id} has been claimed again (fence {activity.fence}).")
        if activity.status not in ACTIVE:
            raise InvalidTransition(f"Activity {self.agent_id} is {activity.status}; it cannot start.")
        if activity.is_suspended:
            raise InvalidTransition(f"Activity {self.agent_id} is suspended; the end of its children resumes it.")
        if activity.status == Status.RUNNING and activity.fence == self.fence:
            return None  # repeated after a commit without an answer
        resumes = activity.blocking_child_id is not None
        if activity.status == Status.QUEUED and not resumes:
            activity.attempt += 1
            activity.waited = _seconds_in_queue(activity, now)
        activity.status = Status.RUNNING
        activity.fence, activity.worker = self.fence, self.worker
        activity.crashes = max(activity.crashes, self.crashes)
        activity.percentage = activity.percentage if resumes or activity.is_replayed else 0
        activity.started_at = activity.started_at or now
        activity.run_after = activity.blocking_child_id = None
        return log(activity, conf.ACTIVITY_MESSAGE_RESUMED if resumes else conf.ACTIVITY_MESSAGE_STARTED, now)


def has_record(activity: Activity) -> bool:
    """Return whether the next attempt finds calls or steps that are done."""
    using, agent_id = activity._state.db, activity.agent_id
    calls = AgentCall.objects.using(using).filter(activity_id=agent_id, state=CallState.DONE).current()
    steps = StepRun.objects.using(using).filter(activity_id=agent_id, state=StepState.COMPLETE)
    return calls.exists() or steps.exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedOperation(Operation):
    """A change by the running attempt (`fence`), or by code outside any attempt (None)."""

    fence: int | None = None

    def check_owner(self, activity: Activity) -> None:
        """Raise `StaleAttempt` or `InvalidTransition` unless the activity is running under this fence."""
        is_owner = activity.status == Status.RUNNING and activity.fence == self.fence and not activity.is_suspended
        if self.fence is not None and not is_owner:
            raise StaleAttempt(f"Activity {self.agent_id} is {activity.status} and no longer belongs to this attempt.")
        if activity.status not in ACTIVE:
            raise InvalidTransition(f"Activity {self.agent_id} is {activity.status}; it has ended.")
        if activity.status == Status.QUEUED and activity.queue:
            raise InvalidTransition(f"Activity {self.agent_id} waits in queue {activity.queue!r}; no worker runs it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(OwnedOperation):
    """Log a message, with or without a percentage. Starts an activity that its creator drives, outside a queue."""

    update_fields = (*LOGGED, "status", "percentage", "attempt", "started_at")

    message: str
    percentage: int | None = None
    type: LineType = field(default_factory=message_type)

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        if activity.status == Status.QUEUED:
            activity.status, activity.attempt, activity.started_at = Status.RUNNING, 1, now
        if self.percentage is not None:
            activity.percentage = self.percentage
        return log(activity, self.message, now, type=self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddUsage(OwnedOperation):
    """Add to the token usage and the cost, also after a cancel: the tokens of a canceled run are billed, too."""

    update_fields = ("usage", "cost", "updated_at")
    read_fields = ("usage", "cost")

    usage: Mapping[str, int]
    cost: Decimal | None = None
    """Of these tokens in US dollars; None: unknown."""

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if self.fence is not None and activity.fence != self.fence:
            raise StaleAttempt(f"Activity {self.agent_id} has been claimed again (fence {activity.fence}).")
        total: dict[str, int] = dict(activity.usage or {})
        for name, count in self.usage.items():
            total[name] = total.get(name, 0) + count
        activity.usage, activity.updated_at = total, now
        if self.cost is not None:
            activity.cost = (activity.cost or Decimal()) + self.cost
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(OwnedOperation, EndOfWait):
    """End an attempt that succeeded. `result` is JSON."""

    update_fields = (
        *(*LOGGED, "status", "percentage", "result", "error", "public_error", "traceback", "finished_at"),
        "waiting_for",
    )

    result: Any = None
    message: str | None = None

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.status == Status.COMPLETE and self.fence is not None and activity.fence == self.fence:
            return None  # repeated after a commit without an answer
        self.check_owner(activity)
        activity.status, activity.percentage = Status.COMPLETE, 100
        activity.result, activity.error, activity.traceback = self.result, "", ""
        activity.public_error = None
        activity.finished_at = now
        end_wait(activity)
        return log(activity, self.message or conf.ACTIVITY_MESSAGE_COMPLETE, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(OwnedOperation, EndOfWait):
    """End an attempt that failed. With `retry_delay` (seconds) and a retry left, the activity is queued again."""

    update_fields = (
        *(*LOGGED, "status", "error", "public_error", "traceback", "retries", "run_after", "finished_at"),
        *("is_final", "waiting_for"),
    )

    error: str
    public_error: str | None = None
    """The error for users without the monitor permission, the end of `error`; None: its class."""
    traceback: str = ""
    retry_delay: float | None = None
    """None if another attempt would fail as well; then retries of the parent do not run the activity again, either."""
    message: str | None = None

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        end_wait(activity)
        activity.traceback = storable_text(self.traceback)
        activity.is_final = self.retry_delay is None
        if self.retry_delay is None or activity.retries >= activity.max_retries:
            activity.status, activity.finished_at = Status.ERROR, now
            template, values = self.message or conf.ACTIVITY_MESSAGE_ERROR, {}
        else:
            activity.status = Status.QUEUED
            activity.retries += 1
            activity.run_after = now + timedelta(seconds=self.retry_delay)
            template = conf.ACTIVITY_MESSAGE_RETRY
            values = {"attempt": activity.attempt, "delay": delay_text(self.retry_delay, now)}
        return log_error(activity, template, values, self, now, traceback=self.traceback)


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp(Start):
    """End a claimed activity instead of starting it, after too many crashes or expired leases."""

    update_fields: ClassVar[tuple[str, ...]] = (
        *Start.update_fields,
        "error",
        "public_error",
        "finished_at",
        "is_final",
    )
    read_fields: ClassVar[tuple[str, ...]] = (*Start.read_fields, "discounted_crashes")

    expired_leases: int = 0

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        # Since its latest start, an activity has taken one process down at most. Others that died with it had claimed
        # it and not started it yet; the queue counts these, too.
        most = activity.crashes + (activity.status == Status.RUNNING)
        started = Start.apply(self, activity, now)
        crashes = min(self.crashes, most) - activity.discounted_crashes
        if crashes < conf.MAX_CRASHES and self.expired_leases < conf.MAX_EXPIRED_LEASES:
            return started  # it has made progress after some of the crashes
        activity.status, activity.finished_at, activity.is_final = Status.ERROR, now, True
        if crashes >= conf.MAX_CRASHES:
            activity.error = f"The worker process died {crashes} times while running this activity."
        else:
            activity.error = (
                f"The lease of this activity expired {self.expired_leases} times: its worker died with its pool, or "
                "could not reach the queue."
            )
        activity.public_error = activity.error
        return log(activity, fill(conf.ACTIVITY_MESSAGE_ERROR, error=activity.error), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(OwnedOperation):
    """Queue an attempt that a shutdown interrupts again, without using up a retry."""

    update_fields = (*LOGGED, "status", "attempt")

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.status = Status.QUEUED
        line = log(activity, conf.ACTIVITY_MESSAGE_RELEASED, now)
        activity.attempt = max(0, activity.attempt - 1)
        return line


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(EndOfWait):
    """Cancel the activity at once; later writes of a running attempt are refused."""

    update_fields = (*LOGGED, "status", "finished_at", "is_final", "waiting_for")

    message: str | None = None
    is_final: bool = True
    """False if it is canceled because its parent has ended: it runs again when its parent does."""

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.status not in ACTIVE:
            raise InvalidTransition(
                _("Activity %(agent_id)s is %(status)s; it cannot be canceled.")
                % {"agent_id": self.agent_id, "status": activity.status},
                f"already {activity.status}",
            )
        activity.status, activity.finished_at, activity.is_final = Status.CANCELED, now, self.is_final
        end_wait(activity)
        return log(activity, self.message or conf.ACTIVITY_MESSAGE_CANCELED, now)


def _seconds_in_queue(activity: Activity, now: datetime) -> float:
    """Return the seconds since a queued activity could have started; its newest log line is that of the enqueue."""
    since = max(filter(None, (activity.latest_log_timestamp, activity.run_after)), default=now)
    return max(0.0, (now - since).total_seconds())
