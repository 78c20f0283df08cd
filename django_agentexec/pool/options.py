"""Options of a pool."""

from __future__ import annotations

from dataclasses import dataclass

from ..worker.options import WorkerOptions
from .services import ServiceFactory


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool runs."""

    worker: WorkerOptions
    workers: int
    """How many processes; with 0 the pool does nothing but its duties."""
    autoreload: bool = False
    duties: tuple[ServiceFactory, ...] = ()
