"""The service of a pool that deletes calls after `KEEP_CALLS` seconds, and expired results of tools."""

from __future__ import annotations

import logging
from datetime import timedelta

from ..background import PoolService
from ..calls.pruning import prune_calls
from ..conf import conf
from ..models import Activity
from ..resilience.idempotency import prune_results
from .services import register_service

logger = logging.getLogger(__name__)

INTERVAL = 3_600.0  # seconds between two rounds
PAUSE = 0.2  # seconds between two batches that deleted calls, in which other transactions run


class TracePruner(PoolService):
    """Deletes expired results of tools, and calls of activities that ended longer than `KEEP_CALLS` ago, in batches.

    Each pool runs one: batches skip rows that another pool has locked.
    """

    def step(self) -> float:
        """Delete what is due, and return the seconds until the next round."""
        while prune_results() and not self._stopping.wait(PAUSE):
            pass
        if conf.KEEP_CALLS <= 0:
            return INTERVAL
        total = 0
        for number in prune_calls(timedelta(seconds=conf.KEEP_CALLS)):
            total += number
            if self.stopping or (number and self._stopping.wait(PAUSE)):
                break
        if total:
            logger.info("Deleted %d calls of activities that ended more than %d s ago.", total, conf.KEEP_CALLS)
        return INTERVAL


def install() -> None:
    """Register the service for every pool."""
    register_service("trace pruner", TracePruner, app_label=Activity._meta.app_label)
