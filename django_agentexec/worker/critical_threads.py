"""Threads that a worker process cannot do without: where one fails, the process ends, for all to see.

A process that lost one of them would look alive, keep its claims and do nothing with them. Ended, it is
buried by its pool: the claims go back to the queue, and another process starts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

EXIT_DEFECT = 1


def start_critical_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread that runs `run`; an exception of it ends the process with code 1."""
    thread = threading.Thread(target=_run_or_exit, args=[name, run], name=name, daemon=True)
    thread.start()
    return thread


def _run_or_exit(name: str, run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException:  # nothing may end this thread unseen
        logger.critical("Thread %s of this worker process failed; the process ends.", name, exc_info=True)
        logging.shutdown()
        os._exit(EXIT_DEFECT)
