"""The duties of pools: expired approvals are decided by their rule, and missed decisions resume their activities."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from ..activity.completion_hooks import register_repair
from ..activity.store import database
from ..background import PoolService
from ..exceptions import ActivityLocked, ApprovalNotFound
from ..models import DECISIONS, Activity, Approval, ApprovalStatus
from .decisions import expire, resume

logger = logging.getLogger(__name__)

BATCH = 500  # approvals of one step, and activities that are resumed together
MAX_PAUSE = 5.0  # seconds between two looks at the table, so that an expiry is late by at most this much
MIN_PAUSE = 0.1  # seconds; a locked activity is tried again
SETTLING = timedelta(seconds=5)  # the push after a decision may be in progress


def expire_due() -> int:
    """Decide the approvals that have expired, each in a transaction; return their number."""
    due = Approval.objects.using(database()).filter(status=ApprovalStatus.PENDING, expires_at__lte=timezone.now())
    expired = 0
    for approval_id in list(due.order_by("expires_at", "id").values_list("id", flat=True)[:BATCH]):
        try:
            expired += expire(approval_id)
        except ApprovalNotFound:
            continue  # deleted with its activity
        except ActivityLocked as error:
            logger.warning("%s Its approval expires later.", error)
    return expired


def next_expiry() -> datetime | None:
    """Return the time at which the next pending approval expires, or None."""
    pending = Approval.objects.using(database()).filter(status=ApprovalStatus.PENDING, expires_at__isnull=False)
    return pending.order_by("expires_at").values_list("expires_at", flat=True).first()


def resume_missed() -> None:
    """Resume activities that are suspended for a decision although none of their approvals is pending."""
    pending = Approval.objects.filter(activity_id=OuterRef("agent_id"), status=ApprovalStatus.PENDING, set_aside=0)
    waiting = Activity.objects.using(database()).suspended().filter(waiting_for__in=DECISIONS)
    now = timezone.now()
    settled = Q(updated_at__lte=now - SETTLING) | Q(updated_at__gt=now + SETTLING)
    missed: list[UUID] = list(
        waiting.filter(~Exists(pending), settled, blocking_child_id=F("agent_id")).values_list("agent_id", flat=True)[
            :BATCH
        ]
    )
    if missed:
        resume(missed)


class ApprovalExpiry(PoolService):
    """The service of a pool that decides expired approvals. Any number of pools may run it at the same time."""

    def step(self) -> float:
        """Decide what has expired, and return the seconds until the next expiry, at most `MAX_PAUSE`."""
        if expire_due() == BATCH:
            return 0.0
        next_at = next_expiry()
        seconds = (next_at - timezone.now()).total_seconds() if next_at else MAX_PAUSE
        return min(max(seconds, MIN_PAUSE), MAX_PAUSE)


def install() -> None:
    """Register the repair; called when the app is ready."""
    register_repair("missed decisions", resume_missed)
