"""How long to wait before an attempt is repeated."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from .exceptions import InvalidOption
from .parsing import as_seconds

# A provider that asks for more than an hour is treated as one that asks for an hour.
MAX_RETRY_AFTER = 3600.0

Delay = Callable[[int, BaseException], float]
"""A function of the retry's number (from 1) and the exception, returning seconds."""


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with full jitter: a random time of up to `base * factor ** (retry - 1)` seconds.

    The bound grows no further than `maximum` seconds. With `jitter=False` the wait is the bound itself. `base` and
    `maximum` may be timedeltas. Raises `InvalidOption` for negative or other values.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base: float | timedelta = 1.0
    factor: float = 2.0
    maximum: float | timedelta = 600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        for name in ("base", "factor", "maximum"):
            value = getattr(self, name)
            number = value if name == "factor" else as_seconds(value)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= 0:
                kind = "a number from 0" if name == "factor" else "seconds from 0, or a timedelta"
                raise InvalidOption(f"Backoff({name}={value!r}) must be {kind}.")

    def __call__(self, retry: int, error: BaseException) -> float:
        """Return the seconds to wait before retry number `retry` (from 1)."""
        bound = min(as_seconds(self.maximum), as_seconds(self.base) * self.factor ** min(retry - 1, 64))
        return random.uniform(0, bound) if self.jitter else bound


def retry_after(error: BaseException, now: datetime | None = None) -> float | None:
    """Return the seconds a provider asks to wait, or None.

    Read from the headers `retry-after-ms` and `Retry-After` (RFC 9110, section 10.2.3): seconds or a date.
    """
    headers = headers_of(error)
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            seconds = _number(str(milliseconds)) / 1000
        elif (value := headers.get("retry-after")) is not None:
            seconds = _seconds(str(value), now or datetime.now(UTC))
        else:
            return None
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None  # a header that cannot be read asks for nothing
    return min(max(0.0, seconds), MAX_RETRY_AFTER)


def headers_of(error: BaseException) -> dict[str, Any]:
    """Return the headers of the response that an exception carries, by their names in lower case.

    Read from `error.response`, which the exceptions of openai, anthropic, httpx and requests have, or from the
    exception itself (urllib, aiohttp).
    """
    for source in (_response_of(error), error):
        headers = getattr(source, "headers", None)
        try:
            if headers:
                return {str(name).lower(): value for name, value in headers.items()}
        except (AttributeError, TypeError, ValueError):
            continue  # something else by that name
    return {}


def _response_of(error: BaseException) -> object:
    try:
        return getattr(error, "response", None)
    except Exception:  # noqa: BLE001  # a property may raise anything
        return None


def _seconds(value: str, now: datetime) -> float:
    try:
        return _number(value)
    except ValueError:
        return (parsedate_to_datetime(value) - now).total_seconds()


def _number(text: str) -> float:
    """Return a number in ASCII digits; `float` alone also takes underscores and the digits of other scripts."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text[:50]!r} is not a number.")
    return float(text)
