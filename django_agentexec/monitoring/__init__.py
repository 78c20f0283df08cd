"""Monitoring of the whole installation: workers, queues, the last hour, health checks and counters.

`overview` returns the data of a dashboard.
"""

from .counters import Counters, Histogram, counters
from .health import health
from .limits import LimitUsage, limit_usage
from .overview import overview, queues, waiting_by_reason, workers
from .reconciliation import record_reconciliation
from .schemas import (
    BreakerSchema,
    HealthCheckSchema,
    HealthSchema,
    LastKnownSchema,
    MinuteSchema,
    OverviewSchema,
    QueueSchema,
    WorkerSchema,
)

__all__ = [
    "BreakerSchema",
    "Counters",
    "HealthCheckSchema",
    "HealthSchema",
    "Histogram",
    "LimitUsage",
    "LastKnownSchema",
    "MinuteSchema",
    "OverviewSchema",
    "QueueSchema",
    "WorkerSchema",
    "counters",
    "health",
    "limit_usage",
    "record_reconciliation",
    "overview",
    "queues",
    "waiting_by_reason",
    "workers",
]
