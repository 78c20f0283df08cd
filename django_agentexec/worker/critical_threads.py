"""Threads that a worker process cannot run without: an exception in such a thread ends the process.

A process without one of them would look alive and keep its claims without working on them. After its end, the pool
returns its claims to the queue and starts another process.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from ..background import start_daemon_thread

logger = logging.getLogger(__name__)

EXIT_DEFECT = 1


def start_critical_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread that calls `run`; an exception ends the process with exit code 1."""
    return start_daemon_thread(name, _run_or_exit, name, run)


def _run_or_exit(name: str, run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException:  # no exception may end this thread unnoticed
        logger.critical("Thread %s of this worker process failed; the process ends.", name, exc_info=True)
        logging.shutdown()
        os._exit(EXIT_DEFECT)
