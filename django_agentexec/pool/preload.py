"""Imports of the fork server, so that each worker process starts in milliseconds and shares their memory.

Runs only in the fork server, which must have neither threads nor connections afterwards: a forked process has no
copy of the threads, and would share the connections.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading

from .. import forks

SYS_PATH_VARIABLE = "AGENTEXEC_SYS_PATH"

logger = logging.getLogger(__name__)


def preload() -> None:
    """Set up Django and import every task. Errors are ignored here, since the worker processes report them."""
    # Ignore a SIGTERM to the whole process group: the pool ends the fork server. Forked processes accept it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forks.install()  # not only by the app, whose setup may fail
    forks.reset_after_fork(_accept_sigterm)
    for entry in reversed(json.loads(os.environ.get(SYS_PATH_VARIABLE, "[]"))):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    try:
        import django

        django.setup()
        from django.db import connections

        from ..tasks.registry import registry

        registry.discover()
        connections.close_all()
        # Imported objects live as long as the process: exclude them from garbage collection, which would also copy
        # the shared memory pages by writing to them.
        gc.collect()
        gc.freeze()
    except Exception as error:  # noqa: BLE001  # the worker processes raise it again
        logger.debug("Preloading stopped: %r", error)
        return
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        logger.warning(
            "Importing the project's tasks started threads (%s), which worker processes will not have. "
            "Start them in the handler, or set AGENTEXEC['START_METHOD'] = 'spawn'.",
            names,
        )


def _accept_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if SYS_PATH_VARIABLE in os.environ:
    preload()
