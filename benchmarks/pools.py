"""A pool for a measurement: start it, wait until it is ready, stop it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.core.management.color import no_style
from django.db import connection

from django_agentexec.models import Activity
from django_agentexec.queues import get_queue


def until(condition: Callable[[], Any], timeout: float = 120.0) -> None:
    """Wait for another process, with pauses that are long enough not to disturb the measurement."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("The measured pool made no progress.")
        time.sleep(0.01)


@contextmanager
def pool(workers: int = 2, concurrency: int = 50, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a pool; all its workers are registered when the block begins."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "django", "runagentworkers", "-v0"),
            *("--workers", str(workers), "--concurrency", str(concurrency)),
        ],
        env={**os.environ, "BENCHMARK_SETTINGS": json.dumps(settings)},
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: len(get_queue().workers()) == workers)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def is_quick() -> bool:
    """Return whether the measurements are short and the figures rough."""
    return bool(os.environ.get("BENCHMARK_QUICK"))


def scaled(count: int) -> int:
    """Return a count, or a fifth of it for quick measurements."""
    return count // 5 if is_quick() else count


def all_finished() -> bool:
    """Return whether no activity is active."""
    return not Activity.objects.active().exists()


def forget_everything() -> None:
    """Delete all rows and clear the queue."""
    tables = [model._meta.db_table for model in apps.get_app_config("agentexec").get_models()]
    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables, allow_cascade=True))
    get_queue().clear()
