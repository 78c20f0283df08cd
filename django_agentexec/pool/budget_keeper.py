"""The service of a pool that releases reservations of dead attempts, and resumes activities that a budget covers."""

from __future__ import annotations

from ..background import PoolService
from ..budgets.waits import BATCH, release_stale, resume_waiting, resume_without_wait

PAUSE = 1.0  # seconds between two looks at the tables, which are small: calls in progress, and waiting activities


class BudgetKeeper(PoolService):
    """Keeps reservations and waits in step with activities. Any number of pools may run it at the same time."""

    def step(self) -> float:
        """Release and resume what is due, and return the seconds until the next step."""
        released = release_stale()
        resumed = resume_waiting() + resume_without_wait()
        return 0.0 if released == BATCH or resumed >= BATCH else PAUSE
