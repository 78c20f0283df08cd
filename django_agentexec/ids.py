"""Time-ordered identifiers: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime
from uuid import UUID

from .parsing import parse_id

_lock = threading.Lock()
_last_timestamp = 0
_counter = 0
HEX_DIGITS = 32
_COUNTER_BITS = 12  # rand_a, used as a counter within one millisecond (RFC 9562, section 6.2, method 1)


def uuid7() -> UUID:
    """Return a new UUID version 7, larger than all previous UUIDs of this process."""
    global _last_timestamp, _counter
    with _lock:
        timestamp = time.time_ns() // 1_000_000
        if timestamp > _last_timestamp:
            # Starts in the lower half, so that a millisecond has room for at least 2,048 more.
            _last_timestamp, _counter = timestamp, int.from_bytes(os.urandom(2)) >> 5
        else:
            _counter += 1
            if _counter >> _COUNTER_BITS:
                _last_timestamp, _counter = _last_timestamp + 1, 0
        value = _last_timestamp << 80 | 0x7 << 76 | _counter << 64 | 0b10 << 62
    return UUID(int=value | int.from_bytes(os.urandom(8)) >> 2)


def first_id(moment: datetime) -> UUID:
    """Return the smallest id that can be made at `moment`: ids begin with 48 bits of milliseconds since 1970."""
    return UUID(int=max(0, int(moment.timestamp() * 1_000)) << 80)


def id_range(beginning: str) -> tuple[UUID, UUID]:
    """Return the first and the last id that begin with these hexadecimal digits, 32 at most; dashes do not matter.

    Raises `ValueError` for anything else.
    """
    digits = beginning.replace("-", "")
    return parse_id(digits.ljust(HEX_DIGITS, "0")), parse_id(digits.ljust(HEX_DIGITS, "f"))
