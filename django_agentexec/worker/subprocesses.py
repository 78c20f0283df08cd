"""Processes that handlers start with `multiprocessing`: they know the project, and end with their worker.

Such a process imports the module of the function that it is to call. That usually is an `agents` module, hence imports
models, so Django has to be set up before: by this module, which multiprocessing runs as the main module of the new
process (see `enable_multiprocessing`), or already by the fork server that the process comes from.
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
END_TIMEOUT = 1.0  # seconds that all of them together get to end


def enable_multiprocessing() -> None:
    """Let the handlers of this worker process use `Process`, `Pool` and `ProcessPoolExecutor`."""
    # A fork server of the worker's own, which starts with the first process that a handler asks for.
    multiprocessing.set_forkserver_preload(["django_agentexec.pool.preload"])
    preparation = get_preparation_data("")
    os.environ[MAIN_VARIABLE] = json.dumps(
        {"name": preparation.get("init_main_from_name"), "path": preparation.get("init_main_from_path")}
    )
    # multiprocessing runs the main module first in a new process, whatever the start method.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec(__name__)


def end_subprocesses() -> None:
    """End the processes that handlers have left: nobody takes their results any more."""
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
    """Run the project's own main module, as multiprocessing would have done, and return its names."""
    main = json.loads(os.environ.get(MAIN_VARIABLE, "{}"))
    if main.get("path"):
        return runpy.run_path(main["path"], run_name="__mp_main__")
    if main.get("name") and not main["name"].endswith("__main__"):
        return runpy.run_module(main["name"], run_name="__mp_main__", alter_sys=True)
    return {}


if __name__ == "__mp_main__":
    _set_up()
