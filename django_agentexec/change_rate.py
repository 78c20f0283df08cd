"""The rate limit of changes (enqueue, retry and cancel) of one user, shared by REST and websockets.

It needs no REST framework, since websockets work without it; its settings apply if the project has them.
"""

from __future__ import annotations

import time

from django.conf import settings
from django.core.cache import cache

from .conf import conf

SCOPE = "agentexec_enqueue"  # the name in `DEFAULT_THROTTLE_RATES`
_PERIODS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def change_rate() -> str | None:
    """Return the rate of `DEFAULT_THROTTLE_RATES`, or else of `API_CHANGE_RATE`; None is no limit."""
    rates = getattr(settings, "REST_FRAMEWORK", {}).get("DEFAULT_THROTTLE_RATES") or {}
    rate = rates.get(SCOPE, conf.API_CHANGE_RATE)
    return str(rate) if rate else None


def count_change(holder: object) -> float | None:
    """Count a change of `holder` and return None, or return the seconds until the next change is allowed."""
    rate = change_rate()
    if rate is None:
        return None
    number, _, period = rate.partition("/")
    allowed, duration = int(number), _PERIODS[period[0]]
    key, now = f"throttle_{SCOPE}_{holder}", time.time()
    times: list[float] = [each for each in cache.get(key, []) if each > now - duration]  # the newest first
    if len(times) >= allowed:
        return duration - (now - times[allowed - 1])
    cache.set(key, [now, *times], duration)
    return None
