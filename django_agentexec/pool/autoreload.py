"""Restart of a pool when code changes, by Django's file watcher; for development."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from django.apps import apps
from django.utils import autoreload

from ..background import start_daemon_thread
from ..tasks.registry import registry

logger = logging.getLogger(__name__)

TRIAL_VARIABLE = "AGENTEXEC_AUTORELOAD_TRIAL"
SCAN_INTERVAL = 1.0  # seconds between two looks at the files while the code cannot start; as Django's watcher
_LIBRARIES = {"site-packages", "dist-packages", "node_modules"}


class CodeWatcher:
    """A watcher of the project's files, which restarts the process once its pool has ended."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._was_called = False
        self._changed = threading.Event()

    def start(self) -> None:
        """Call `on_change` once when a file of the project changes; watches in a daemon thread."""
        reloader = autoreload.get_reloader()
        try:
            registry.discover()  # Django watches only imported modules
        except Exception as error:
            logger.exception("The project's tasks cannot be imported; waiting for a change.")
            reloader.extra_files.update(Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__))
            if isinstance(error, SyntaxError) and error.filename:
                reloader.extra_files.add(Path(error.filename))
        autoreload.file_changed.connect(self._notice, weak=False)
        start_daemon_thread("agentexec-autoreload", reloader.run, threading.main_thread())

    def _notice(self, sender: Any, file_path: Path, **kwargs: Any) -> bool:
        if not self._was_called:
            self._was_called = True
            self._on_change()
        self._changed.set()
        return True  # handled: Django must not exit the process

    def restart(self) -> NoReturn:
        """Replace this process by a fresh process with the same arguments, once one can start.

        Code with a typo would end the fresh process before it watches any file. A trial process therefore starts
        first, as far as the pool; while it fails, this process waits for the next change. SIGTERM and Ctrl-C end it.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit)
        arguments = autoreload.get_child_arguments()
        while True:
            self._changed.clear()
            files = _modification_times()
            trial = subprocess.run(
                arguments,
                env={**os.environ, TRIAL_VARIABLE: "1"},
                stdout=subprocess.PIPE,  # printed after a failure only: the fresh process repeats its warnings
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
            if trial.returncode == 0:
                os.execv(arguments[0], arguments)
            sys.stderr.write(trial.stdout)
            sys.stderr.flush()
            logger.error("The pool cannot start with the changed code; waiting for the next change.")
            while _modification_times() == files and not self._changed.wait(SCAN_INTERVAL):
                continue


def is_trial() -> bool:
    """Return whether this process only tries whether a pool could start."""
    return TRIAL_VARIABLE in os.environ


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _modification_times() -> dict[str, float]:
    """Return the time of the last change of each Python file of the project, imported or not."""
    folders = {os.getcwd(), *(config.path for config in apps.get_app_configs())}
    return dict(_python_files(folder for folder in folders if _LIBRARIES.isdisjoint(Path(folder).parts)))


def _python_files(folders: Iterable[str]) -> Iterator[tuple[str, float]]:
    for top in folders:
        for folder, inner, names in os.walk(top):
            if "pyvenv.cfg" in names:
                inner.clear()
                continue
            inner[:] = [name for name in inner if name not in _LIBRARIES and not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                if path.suffix == ".py" and path.exists():
                    yield str(path), path.stat().st_mtime
