"""Logs: readable ones without a configuration, at a limited rate, and safe against the texts of exceptions.

The text of an exception may come from a model, a document or a client, and a traceback repeats it unchanged: it must
neither forge lines of the log nor control a terminal.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from .validation import escape_controls

_FORMAT = "%(asctime)s %(levelname)-7s [%(process)d] %(message)s"
_INDENT = "    "


def configure_logging(level: str) -> None:
    """Write the log of the package to stderr unless a handler already receives it; for `runagentworkers`."""
    logger = logging.getLogger("django_agentexec")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT, "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(level)


class ThrottledLogger:
    """Logs each distinct message at most once a minute, however often a failure repeats it."""

    INTERVAL = 60.0
    """Seconds between two records of the same message."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[str, float] = {}

    def warn(self, text: str, error: BaseException) -> None:
        """Log `text` with the error, unless the same text was logged within `INTERVAL`."""
        now = time.monotonic()
        if now - self._last.get(text, -self.INTERVAL) >= self.INTERVAL:
            self._last[text] = now
            self._logger.warning("%s (%s: %s)", text, type(error).__name__, error)


class EscapeTracebacks(logging.Filter):
    """Logging filter that escapes control characters in tracebacks and indents them.

    No line of a traceback looks like the first line of a record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the traceback text that formatters use; `exc_info` stays unchanged."""
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            record.exc_text = "\n".join(_INDENT + line for line in escape_controls(text).split("\n"))
        return True


def install() -> None:
    """Add the filter to every logger of this package, since a filter does not apply to child loggers."""
    package, folder = __name__.rpartition(".")[0], Path(__file__).parent
    traceback_filter = EscapeTracebacks()
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        logger = logging.getLogger(".".join([package, *(part for part in parts if part != "__init__")]))
        if not any(isinstance(each, EscapeTracebacks) for each in logger.filters):
            logger.addFilter(traceback_filter)
