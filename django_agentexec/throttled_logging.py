"""Logging of persistent failures at a limited rate."""

from __future__ import annotations

import time
from logging import Logger


class ThrottledLogger:
    """Logs each distinct message at most once a minute, however often it is repeated."""

    INTERVAL = 60.0
    """Seconds between two records of the same message."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._last: dict[str, float] = {}

    def warn(self, text: str, error: BaseException) -> None:
        """Log `text` with the error, unless the same text was logged within `INTERVAL`."""
        now = time.monotonic()
        if now - self._last.get(text, -self.INTERVAL) >= self.INTERVAL:
            self._last[text] = now
            self._logger.warning("%s (%s: %s)", text, type(error).__name__, error)
