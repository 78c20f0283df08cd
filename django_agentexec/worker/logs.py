"""Readable logs of `runagentworkers` for projects without a logging configuration."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)-7s [%(process)d] %(message)s"


def configure_logging(level: str) -> None:
    """Write the log of the package to stderr unless a handler already receives it."""
    logger = logging.getLogger("django_agentexec")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(FORMAT, "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(level)
