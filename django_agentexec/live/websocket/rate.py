"""How many messages a client may send: a bucket of tokens that fills at a steady rate. One per socket."""

from __future__ import annotations

import time

BURST = 60
PER_SECOND = 10.0


class Allowance:
    """`BURST` messages at once, `PER_SECOND` in the long run."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one more message is allowed now."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._at) * PER_SECOND)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
