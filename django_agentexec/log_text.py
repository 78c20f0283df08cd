"""Keeps the texts of exceptions from forging lines of a log, or steering the terminal that shows it.

An exception's text may come from a model, a document or a caller. A traceback in a log repeats it as it is.
"""

from __future__ import annotations

import logging
from pathlib import Path

from .validation import escape_controls

_INDENT = "    "


class EscapeTracebacks(logging.Filter):
    """Writes tracebacks without control characters, and indented: no line of one looks like the first of a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Prepare the text that formatters take for the traceback; `exc_info` itself stays."""
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            record.exc_text = "\n".join(_INDENT + line for line in escape_controls(text).split("\n"))
        return True


def escape_tracebacks() -> None:
    """Let all loggers of this package escape: each, since a filter does not apply to the loggers below its own."""
    package, folder = __name__.rpartition(".")[0], Path(__file__).parent
    escape = EscapeTracebacks()
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        logger = logging.getLogger(".".join([package, *(part for part in parts if part != "__init__")]))
        if not any(isinstance(one, EscapeTracebacks) for one in logger.filters):
            logger.addFilter(escape)
