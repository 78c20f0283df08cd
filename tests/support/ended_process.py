"""Stands for the worker processes of a pool, where the pool's own bookkeeping is tested."""

from __future__ import annotations

import time
from typing import Any

from django_agentexec.worker.options import WorkerOptions


class Ended:
    """Stands for a process that has ended."""

    def __init__(
        self, options: WorkerOptions, code: int, *, has_heartbeat: bool = True, was_late: bool = False
    ) -> None:
        self.options, self.code, self.has_heartbeat = options, code, has_heartbeat
        self.started = time.monotonic()
        self.pid, self.stopping, self.was_late = 1, False, was_late

    def exit_code(self) -> int:
        return self.code

    def __getattr__(self, name: str) -> Any:
        return lambda: None
