"""A wrong clock: shifts the system time of a process by the seconds in `CHAOS_CLOCK`.

Must come before Django is set up, since models bind `timezone.now` when they are made. `time.monotonic` stays true, as
it does on a machine whose clock is wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from django.utils import timezone

VARIABLE = "CHAOS_CLOCK"
_NANOSECONDS = 1_000_000_000


def install() -> None:
    """Shift the clock of this process if the environment variable is set."""
    shift = float(os.environ.get(VARIABLE) or 0)
    if shift:
        time.time = _shifted(time.time, shift)
        time.time_ns = _shifted(time.time_ns, int(shift * _NANOSECONDS))
        timezone.now = _shifted_moment(timezone.now, timedelta(seconds=shift))


def _shifted(clock: Callable[[], float], shift: float) -> Callable[[], float]:
    return lambda: clock() + shift


def _shifted_moment(clock: Callable[[], datetime], shift: timedelta) -> Callable[[], datetime]:
    return lambda: clock() + shift
