"""A pool for a measurement: started, ready, and told to end."""

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

from django_agentexec.models import Activity
from django_agentexec.queues import get_queue


def until(condition: Callable[[], Any], timeout: float = 120.0) -> None:
    """Wait for another process; coarse enough not to disturb what is measured."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("The measured pool does not get on.")
        time.sleep(0.01)


@contextmanager
def pool(workers: int = 2, concurrency: int = 50, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a pool whose workers have all announced themselves."""
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


def all_finished() -> bool:
    """Whether no activity is active."""
    return not Activity.objects.active().exists()


def forget_everything() -> None:
    """Empty database and queue."""
    Activity.objects.all().delete()
    get_queue().clear()
