"""The service of a pool that releases reservations of dead attempts, and resumes activities that a budget covers."""

from __future__ import annotations

import time

from ..background import PoolService
from ..budgets.waits import BATCH, release_stale, resume_waiting, sweep

PAUSE = 1.0  # seconds between two looks at calls in progress and at waits that may be over, of which there are few
SWEEP_INTERVAL = 15.0  # seconds between two looks at all waiting activities


class BudgetKeeper(PoolService):
    """Keeps reservations and waits in step with activities. Any number of pools may run it at the same time."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self._swept_at: float | None = None

    def step(self) -> float:
        """Release and resume what is due, and return the seconds until the next step."""
        released, resumed = release_stale(), resume_waiting()
        now = time.monotonic()
        if self._swept_at is None or now - self._swept_at >= SWEEP_INTERVAL:
            resumed += sweep()
            self._swept_at = now
        return 0.0 if released == BATCH or resumed >= BATCH else PAUSE
