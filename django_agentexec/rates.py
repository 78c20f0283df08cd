"""Rates of starts, such as `10/m`."""

from __future__ import annotations

import re

MAX_RATE_COUNT = 100_000  # starts per period: the queue stores each start of the period
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
