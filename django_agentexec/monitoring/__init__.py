"""How the whole installation is doing: workers, queues, the last hour, health and counters.

Read by REST, the admin's dashboard and the terminal; `overview` is what a dashboard shows.
"""

from .counters import Counters, Histogram, counters
from .health import health
from .overview import overview, queues, workers
from .reconciliation import note_round
from .schemas import (
    HealthCheckSchema,
    HealthSchema,
    LastKnownSchema,
    MinuteSchema,
    OverviewSchema,
    QueueSchema,
    WorkerSchema,
)

__all__ = [
    "Counters",
    "HealthCheckSchema",
    "HealthSchema",
    "Histogram",
    "LastKnownSchema",
    "MinuteSchema",
    "OverviewSchema",
    "QueueSchema",
    "WorkerSchema",
    "counters",
    "health",
    "note_round",
    "overview",
    "queues",
    "workers",
]
