"""Processes that handlers start with `multiprocessing`: set up for the project, and ended with their worker.

Such a process imports the module of its target function. This is usually an `agents` module, which imports models, so
Django must be set up before: by this module, which multiprocessing runs as the main module of the new process (see
`enable_multiprocessing`), or by the fork server from which the process was forked.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import runpy
import sys
from contextlib import suppress
from multiprocessing.spawn import get_preparation_data

MAIN_VARIABLE = "AGENTEXEC_MAIN"
END_TIMEOUT = 1.0  # seconds for the end of all of them together


def enable_multiprocessing() -> None:
    """Enable `Process`, `Pool` and `ProcessPoolExecutor` in the handlers of this worker process."""
    # The worker has its own fork server, which starts with the first process of a handler.
    multiprocessing.set_forkserver_preload(["django_agentexec.pool.preload"])
    preparation = get_preparation_data("")
    os.environ[MAIN_VARIABLE] = json.dumps(
        {"name": preparation.get("init_main_from_name"), "path": preparation.get("init_main_from_path")}
    )
    # multiprocessing runs the main module first in a new process, whatever the start method.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec(__name__)


def end_subprocesses() -> None:
    """End the processes that handlers have left running, since their results are no longer needed."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(END_TIMEOUT / len(children))
        if child.exitcode is None:
            with suppress(OSError):
                child.kill()


def _set_up() -> None:
    globals().update(_names_of_main())
    from django.apps import apps

    if not apps.ready:
        import django

        django.setup()


def _names_of_main() -> dict[str, object]:
    """Run the main module of the project, as multiprocessing would, and return its names."""
    main = json.loads(os.environ.get(MAIN_VARIABLE, "{}"))
    if main.get("path"):
        return runpy.run_path(main["path"], run_name="__mp_main__")
    if main.get("name") and not main["name"].endswith("__main__"):
        return runpy.run_module(main["name"], run_name="__mp_main__", alter_sys=True)
    return {}


if __name__ == "__mp_main__":
    _set_up()
