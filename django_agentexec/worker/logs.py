"""Readable logs for `runagentworkers`, where the project has not configured its own."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)-7s [%(process)d] %(message)s"


def configure_logging(level: str) -> None:
    """Write the package's log to stderr, unless a handler would receive it already."""
    logger = logging.getLogger("django_agentexec")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(FORMAT, "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(level)
