"""The health check and what it looks for: live workers, and the checks that fail."""

from __future__ import annotations

import time
from typing import Any

from django_agentexec import monitoring
from django_agentexec.monitoring import HealthCheckSchema
from django_agentexec.queues import WorkerInfo, get_queue


def announce(name: str = "w-1", *, queues: tuple[str, ...] = ("default",), **fields: Any) -> None:
    """Make a live worker known."""
    now = time.time()
    values = {"host": "h", "pid": 7, "concurrency": 10, "quarantine": False, "started": now, "last_beat": now, **fields}
    get_queue().register_worker(WorkerInfo(id=name, queues=list(queues), **values))


def check_of(name: str) -> HealthCheckSchema:
    """Return the check with this name."""
    return next(check for check in monitoring.health().checks if check.name == name)


def failures() -> dict[str, str]:
    """Return the details of the checks that fail, by name."""
    return {check.name: check.detail for check in monitoring.health().checks if not check.ok}
