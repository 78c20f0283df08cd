"""What the fork server imports once, so that each worker process starts in milliseconds and shares the memory.

Runs in the fork server only. It must hold neither threads nor connections when it is done, since a fork
copies neither well.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading

SYS_PATH_VARIABLE = "AGENTEXEC_SYS_PATH"

logger = logging.getLogger(__name__)


def preload() -> None:
    """Set Django up and import every task. An error is left to the worker processes, which will show it."""
    # A SIGTERM for the whole process group is the pool's business. The forked processes are ended by it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.register_at_fork(after_in_child=_accept_sigterm)
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
        # What is imported stays: the garbage collectors of the workers need not walk through it again and again,
        # nor copy the memory that they share by touching it.
        gc.collect()
        gc.freeze()
    except Exception as error:  # noqa: BLE001  # whatever it is, the worker processes meet it again
        logger.debug("Preloading stopped: %r", error)
        return
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        logger.warning(
            "Importing the project's agents started threads (%s), which worker processes will not have. "
            "Start them in the handler, or set AGENTEXEC['START_METHOD'] = 'spawn'.",
            names,
        )


def _accept_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if SYS_PATH_VARIABLE in os.environ:
    preload()
