"""Rates such as `10/m`: of the starts of activities, and of the changes of one user.

Changes (enqueue, retry and cancel) over REST and websockets count together. Websockets work without REST framework, so
nothing here needs it; its settings apply if the project has them.
"""

from __future__ import annotations

import re
import time

from django.conf import settings
from django.core.cache import cache

from .conf import conf

MAX_RATE_COUNT = 100_000  # starts per period: the queue stores each start of the period
CHANGE_SCOPE = "agentexec_enqueue"  # the name in `DEFAULT_THROTTLE_RATES`
_PERIODS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,5})/([smhd])")


def parse_rate(text: str) -> tuple[int, float]:
    """Return the starts and the seconds of a rate such as `10/m`. Raises `ValueError`."""
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) > MAX_RATE_COUNT:
        raise ValueError(
            f"{text!r:.50} is not a rate: give a number from 1 to {MAX_RATE_COUNT:,} and a period (s, m, h or d), such "
            "as 10/m."
        )
    return int(found[1]), float(_PERIODS[found[2]])


def change_rate() -> str | None:
    """Return the rate of `DEFAULT_THROTTLE_RATES`, or else of `API_CHANGE_RATE`; None is no limit."""
    rates = getattr(settings, "REST_FRAMEWORK", {}).get("DEFAULT_THROTTLE_RATES") or {}
    rate = rates.get(CHANGE_SCOPE, conf.API_CHANGE_RATE)
    return str(rate) if rate else None


def count_change(holder: object) -> float | None:
    """Count a change of `holder` and return None, or return the seconds until the next change is allowed."""
    rate = change_rate()
    if rate is None:
        return None
    number, _, period = rate.partition("/")
    allowed, duration = int(number), _PERIODS[period[0]]
    key, now = f"throttle_{CHANGE_SCOPE}_{holder}", time.time()
    times: list[float] = [each for each in cache.get(key, []) if each > now - duration]  # the newest first
    if len(times) >= allowed:
        return duration - (now - times[allowed - 1])
    cache.set(key, [now, *times], duration)
    return None
