"""Single key presses on a terminal, without the Enter key."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Keys:
    """The keys of stdin. Where stdin is not a terminal, `wait` only sleeps."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, timeout: float, keys: str) -> bool:
        """Wait up to `timeout` seconds, and return whether one of `keys` was pressed or the terminal was closed."""
        if self._descriptor is None:
            time.sleep(timeout)
            return False
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._descriptor], [], [], left)[0]:
                return False
            pressed = os.read(self._descriptor, 64).decode(errors="replace")
            if not pressed or any(key in keys for key in pressed):
                return True
        return False


@contextmanager
def single_keys() -> Iterator[Keys]:
    """Read single keys, without echo, inside the block."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    import termios  # only where there is a terminal; Windows lacks both modules
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
