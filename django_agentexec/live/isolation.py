"""One shared read for many followers, in which what fails for one of them does not fail for the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from ..throttled_logging import ThrottledLogger

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")

# Seconds for single reads after a shared one has failed: enough to find what fails alone, if the server is available.
PATIENCE = 1.0


def read_isolated(read: Callable[[Mapping[K, V]], R], wanted: Mapping[K, V]) -> tuple[list[R], set[K]]:
    """Return what `read` returns for all of `wanted`, and the keys that cannot be read.

    If the shared read fails, each key is read alone, for a second; what remains then counts as failed. Never raises.
    """
    try:
        return [read(wanted)], set()
    except Exception as error:  # noqa: BLE001  # whatever a database or a queue raises
        throttled.warn("Live followers cannot be updated at present.", error)
    found: list[R] = []
    failed = set(wanted)
    deadline = time.monotonic() + PATIENCE
    for key, value in wanted.items() if len(wanted) > 1 else ():
        try:
            found.append(read({key: value}))
        except Exception as error:  # noqa: BLE001  # as above
            throttled.warn("A live follower cannot be updated; the others are.", error)
        else:
            failed.discard(key)
        if time.monotonic() > deadline:
            break
    return found, failed
