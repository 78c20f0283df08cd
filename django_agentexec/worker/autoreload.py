"""Starting anew when code changes, by Django's own file watcher; for development."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.utils import autoreload

from ..tasks.registry import registry


def watch(on_change: Callable[[], None]) -> None:
    """Call `on_change`, once, when a file of the project changes; watches in a thread."""
    registry.discover()  # what is not imported is not watched
    reloader = autoreload.get_reloader()
    changed = threading.Event()

    def notice(sender: Any, file_path: Path, **kwargs: Any) -> bool:
        if not changed.is_set():
            changed.set()
            on_change()
        return True  # handled: Django must not end this thread's process

    autoreload.file_changed.connect(notice, weak=False)
    threading.Thread(
        target=lambda: reloader.run(threading.main_thread()), name="agentexec-autoreload", daemon=True
    ).start()


def start_anew() -> None:
    """Replace this process by a new one with the same arguments."""
    arguments = autoreload.get_child_arguments()
    os.execv(arguments[0], arguments)
