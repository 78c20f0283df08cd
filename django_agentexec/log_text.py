"""Protection of logs against forged lines and terminal control sequences in the texts of exceptions.

The text of an exception may come from a model, a document or a client, and a traceback repeats it unchanged.
"""

from __future__ import annotations

import logging
from pathlib import Path

from .validation import escape_controls

_INDENT = "    "


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
