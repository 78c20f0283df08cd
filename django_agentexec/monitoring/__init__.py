"""How the whole installation is doing: workers, queues, the last hour, health and counters.

Read by REST, the admin's dashboard and the terminal; `overview` is what a dashboard shows.
"""

from .schemas import HealthCheckSchema, HealthSchema, MinuteSchema, OverviewSchema, QueueSchema, WorkerSchema

__all__ = ["HealthCheckSchema", "HealthSchema", "MinuteSchema", "OverviewSchema", "QueueSchema", "WorkerSchema"]
