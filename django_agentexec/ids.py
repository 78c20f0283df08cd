"""Time-ordered identifiers: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last_timestamp = 0
_counter = 0
_COUNTER_BITS = 12  # rand_a, used as a counter within one millisecond (RFC 9562, section 6.2, method 1)


def uuid7() -> UUID:
    """Return a new UUID version 7, larger than every one this process has made before."""
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
