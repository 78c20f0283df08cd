"""Single key presses of a terminal, without the Enter key."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Keys:
    """Reads keys; without a terminal on stdin there are none, and waiting is only that."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, timeout: float, wanted: str) -> bool:
        """Whether one of the keys `wanted` is pressed within `timeout` seconds."""
        if self._descriptor is None:
            time.sleep(timeout)
            return False
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._descriptor], [], [], left)[0]:
                return False
            pressed = os.read(self._descriptor, 64).decode(errors="replace")
            if not pressed or any(key in wanted for key in pressed):  # nothing: the terminal is gone
                return True
        return False


@contextmanager
def single_keys() -> Iterator[Keys]:
    """Have keys come one by one and unseen inside the block."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    import termios  # where there is a terminal; not on Windows
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
