"""Restart of a pool when code changes, by Django's file watcher; for development."""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.utils import autoreload

from ..background import start_daemon_thread
from ..tasks.registry import registry

logger = logging.getLogger(__name__)


def watch(on_change: Callable[[], None]) -> None:
    """Call `on_change` once when a file of the project changes; watches in a daemon thread."""
    reloader = autoreload.get_reloader()
    try:
        registry.discover()  # Django watches only imported modules
    except Exception as error:
        logger.exception("The project's tasks cannot be imported; waiting for a change.")
        reloader.extra_files.update(Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__))
        if isinstance(error, SyntaxError) and error.filename:
            reloader.extra_files.add(Path(error.filename))
    changed = threading.Event()

    def notice(sender: Any, file_path: Path, **kwargs: Any) -> bool:
        if not changed.is_set():
            changed.set()
            on_change()
        return True  # handled: Django must not exit the process

    autoreload.file_changed.connect(notice, weak=False)
    start_daemon_thread("agentexec-autoreload", reloader.run, threading.main_thread())


def restart() -> None:
    """Replace this process by a fresh process with the same arguments."""
    arguments = autoreload.get_child_arguments()
    os.execv(arguments[0], arguments)
