"""Durations as they are written on a command line: `90`, `30s`, `15m`, `12h`, `30d`, `2w`."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

from ..parsing import parse_decimal, parse_digits

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORM = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([smhdw])")


def duration(text: str) -> timedelta:
    """Return a duration; for argparse. A unit is required: `30` may mean days to one and seconds to another."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write a number and s, m, h, d or w, such as 30d.")
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than can be counted.") from None


def seconds(text: str) -> float:
    """Return the seconds of `90`, or of a duration with a unit; for argparse."""
    value = parse_decimal(text)
    if value is None:
        return duration(text).total_seconds()
    if not 0 <= value < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds.")
    return value


def interval(text: str) -> float:
    """Return seconds, 0.1 at least: how long a screen stays as it is; for argparse."""
    value = seconds(text)
    if value < 0.1:
        raise argparse.ArgumentTypeError(f"{text!r} is too short; 0.1 s is the least.")
    return value


def positive(text: str) -> int:
    """Return a whole number from 1; for argparse."""
    value = parse_digits(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number.")
    return value
