"""Options of a pool."""

from __future__ import annotations

from dataclasses import dataclass

from ..worker.options import WorkerOptions
from .services import ServiceFactory


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The configuration of a pool."""

    worker: WorkerOptions
    workers: int
    """The number of processes; with 0 the pool runs only its services."""
    autoreload: bool = False
    services: tuple[ServiceFactory, ...] = ()
