"""Options of a worker process, and the names of pools and processes."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass, replace
from uuid import UUID


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The configuration of one worker process, which receives it by pickle."""

    queues: tuple[str, ...]
    concurrency: int
    weights: tuple[int, ...] = ()
    """The weights of the queues, in their order; empty: a queue is served only while all earlier queues are empty."""
    burst: bool = False
    max_tasks: int | None = None
    """Activities after which the process is replaced."""
    max_rss: int | None = None
    """Resident memory in bytes after which the process is replaced."""
    quarantine: bool = False
    """Whether it runs only activities that crashed a process, one at a time, and ends when none is left."""
    only: UUID | None = None
    """The only activity to run; the process ends after one attempt of it."""
    log_level: str = "INFO"
    name: str = ""
    """A name that no other process ever has, since the leases in the queue contain it."""

    def named(self, number: int) -> WorkerOptions:
        """Return these options for the pool's process number `number`."""
        return replace(self, name=f"{pool_name()}.{number}")

    def for_quarantine(self) -> WorkerOptions:
        """Return these options for a quarantine process, which runs one suspect at a time."""
        return replace(self, quarantine=True, burst=True, concurrency=1, max_tasks=None)


_token = secrets.token_hex(3)


def pool_name() -> str:
    """Return the name of this process among all pools: host, process id, and a random part."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()) or "localhost"
    return f"{host}:{os.getpid()}:{_token}"
