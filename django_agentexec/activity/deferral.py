"""Deferral: an attempt that waits until a time releases its slot, lease and lock, and resumes when it is due.

    running -> queued, with a due time          (Defer)

It resumes as the same attempt, without using up a retry.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..models import Activity, ActivityLog, Status
from .transitions import OwnedOperation


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
