"""Complaints about what keeps failing, for the log: seldom enough to be read."""

from __future__ import annotations

import time
from logging import Logger


class ThrottledLogger:
    """Logs what keeps failing once a minute, not at each try."""

    EACH = 60.0

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._last: dict[str, float] = {}

    def warn(self, text: str, error: BaseException) -> None:
        """Log `text` with the error, unless the same text was logged within the minute."""
        now = time.monotonic()
        if now - self._last.get(text, -self.EACH) >= self.EACH:
            self._last[text] = now
            self._logger.warning("%s (%s: %s)", text, type(error).__name__, error)
