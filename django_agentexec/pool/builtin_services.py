"""The services that the package itself runs in every pool.

Any number of pools may run them at the same time: each skips the rows that another pool has locked.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from django.utils import timezone

from ..activity import resumption
from ..approvals.expiry import ApprovalExpiry
from ..background import PoolService
from ..budgets import waits
from ..calls.pruning import prune_calls
from ..conf import conf
from ..models import Activity
from ..resilience.idempotency import prune_results
from .services import register_service

logger = logging.getLogger(__name__)

MAX_RESUMPTION_PAUSE = 1.0  # seconds between two looks at the table: a resumption is late by at most this much
MIN_RESUMPTION_PAUSE = 0.1  # seconds; a locked activity is tried again
BUDGET_PAUSE = 1.0  # seconds between two looks at calls in progress and at waits that may be over, which are few
SWEEP_INTERVAL = 15.0  # seconds between two looks at all activities that wait for a budget
PRUNE_INTERVAL = 3_600.0  # seconds between two rounds
PRUNE_PAUSE = 0.2  # seconds between two batches that deleted rows, in which other transactions run


class Resumption(PoolService):
    """Queues suspended activities again whose wait for a condition has ended."""

    def step(self) -> float:
        """Resume what is due, and return the seconds until the next activity is due, within the limits above."""
        if resumption.resume_due() == resumption.BATCH:
            return MIN_RESUMPTION_PAUSE
        due = resumption.next_due()
        seconds = (due - timezone.now()).total_seconds() if due else MAX_RESUMPTION_PAUSE
        return min(max(seconds, MIN_RESUMPTION_PAUSE), MAX_RESUMPTION_PAUSE)


class BudgetKeeper(PoolService):
    """Releases reservations of dead attempts, and resumes activities that a budget covers again."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self._swept_at: float | None = None

    def step(self) -> float:
        """Release and resume what is due, and return the seconds until the next step."""
        released, resumed = waits.release_stale(), waits.resume_waiting()
        now = time.monotonic()
        if self._swept_at is None or now - self._swept_at >= SWEEP_INTERVAL:
            resumed += waits.sweep()
            self._swept_at = now
        return 0.0 if released == waits.BATCH or resumed >= waits.BATCH else BUDGET_PAUSE


class TracePruner(PoolService):
    """Deletes expired results of tools, and calls of activities that ended longer than `KEEP_CALLS` ago, in batches."""

    def step(self) -> float:
        """Delete what is due, and return the seconds until the next round."""
        while prune_results() and not self._stopping.wait(PRUNE_PAUSE):
            pass
        if conf.KEEP_CALLS <= 0:
            return PRUNE_INTERVAL
        total = 0
        for number in prune_calls(timedelta(seconds=conf.KEEP_CALLS)):
            total += number
            if self.stopping or (number and self._stopping.wait(PRUNE_PAUSE)):
                break
        if total:
            logger.info("Deleted %d calls of activities that ended more than %d s ago.", total, conf.KEEP_CALLS)
        return PRUNE_INTERVAL


def install() -> None:
    """Register the services for every pool."""
    label = Activity._meta.app_label
    register_service("trace pruner", TracePruner, app_label=label)
    register_service("approvals", ApprovalExpiry, app_label=label)
    register_service("budgets", BudgetKeeper, app_label=label)
    register_service("resumption", Resumption, app_label=label)
