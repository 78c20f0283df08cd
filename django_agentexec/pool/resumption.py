"""The service of a pool that resumes activities whose wait for a condition has ended."""

from __future__ import annotations

from django.utils import timezone

from ..activity.resumption import BATCH, next_due, resume_due
from ..background import PoolService

MAX_PAUSE = 1.0  # seconds between two looks at the table, so that a resumption is late by at most this much
MIN_PAUSE = 0.1  # seconds; a locked activity is tried again


class Resumption(PoolService):
    """Queues suspended activities again when they are due. Any number of pools may run it at the same time."""

    def step(self) -> float:
        """Resume what is due, and return the seconds until the next activity is due, at most `MAX_PAUSE`."""
        if resume_due() == BATCH:
            return MIN_PAUSE
        due = next_due()
        seconds = (due - timezone.now()).total_seconds() if due else MAX_PAUSE
        return min(max(seconds, MIN_PAUSE), MAX_PAUSE)
