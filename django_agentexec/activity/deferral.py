"""Deferral: an attempt that must wait for a time gives up its slot, its lease and its lock, and resumes when it is due.

    running -> queued, with a due time          (Defer)

It is the same attempt afterwards: nothing is charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..models import Activity, ActivityLog, Status
from .transitions import OwnedOperation


class Deferred(BaseException):
    """Raised by the package to leave a handler for `delay` seconds. Not an `Exception`, so that no handler keeps it."""

    def __init__(self, delay: float) -> None:
        super().__init__(f"This attempt resumes in {delay:.1f} s; let it pass.")
        self.delay = delay


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer(OwnedOperation):
    """The attempt resumes in `delay` seconds, in any worker."""

    update_fields = ("status", "run_after", "blocking_child_id", "updated_at")

    delay: float

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.status, activity.run_after = Status.QUEUED, now + timedelta(seconds=self.delay)
        activity.blocking_child_id = activity.agent_id  # for nothing but the time: its start resumes the attempt
        activity.updated_at = now
        return None  # what it waits for has been logged
