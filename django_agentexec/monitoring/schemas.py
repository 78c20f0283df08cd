"""The wire shapes of monitoring. Ages, waits and durations are in seconds."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from ..queues.breakers import BreakerState


class WorkerSchema(BaseModel):
    """A worker process, according to its last heartbeat."""

    id: str
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    """Maximum number of activities that it runs at the same time."""
    running: int
    done: int
    """Activities that it has completed since its start."""
    failed: int
    """Attempts that failed in it since its start."""
    quarantine: bool
    """Whether it runs only activities whose process died."""
    started_at: datetime
    last_beat_at: datetime
    is_alive: bool
    """Whether its last heartbeat is not older than a lease."""


class QueueSchema(BaseModel):
    """A queue: its waiting and running activities, and its throughput. None: unknown, as its server is unavailable."""

    name: str
    pending: int | None = None
    """Activities that are due and wait for a slot or their lock key."""
    ready: int | None = None
    """Partitions (lock keys, or activities without one) whose next activity can be claimed."""
    delayed: int | None = None
    """Activities that are not due yet."""
    running: int | None = None
    suspects: int | None = None
    """Activities whose process died, which wait for a quarantine process."""
    dead: int | None = None
    oldest_age: float | None = None
    """Seconds that the oldest due activity has waited, or None if none waits; from the database."""
    per_minute: float | None = None
    """Activities that ended in the last five minutes, per minute."""
    waiting_rows: int = 0
    """Queued and delayed activities among the oldest `AGENTEXEC["COUNT_LIMIT"]`; from the database."""
    running_rows: int = 0
    """Running activities, counted in the same way."""


class BreakerSchema(BaseModel):
    """The circuit breaker of a model that `ResilientModel` has called in the last day."""

    name: str
    """The provider and the model, such as `openai/gpt-5`."""
    state: BreakerState
    """`closed`: it is called; `open`: it is not; `half_open`: a single call decides."""
    failures: int
    """Failed calls within the window of `AGENTEXEC["MODEL_BREAKER"]`; 0 unless it is closed."""
    calls: int
    """Ended calls within the window; 0 unless it is closed."""
    open_for: float
    """Seconds since it opened; 0 if it is closed."""
    retry_in: float
    """Seconds until the next trial call may start; 0 if it is closed."""
    reason: str
    """The type of the latest failure, such as `InternalServerError 500`."""


class MinuteSchema(BaseModel):
    """The counters of all queues in one minute."""

    start: datetime
    enqueued: int = 0
    complete: int = 0
    error: int = 0
    canceled: int = 0
    wait_p50: float | None = None
    """Median wait of the started activities; None if none started."""
    wait_p95: float | None = None


class LastKnownSchema(BaseModel):
    """The live values of the last complete overview of this process."""

    at: datetime
    complete_last_hour: int
    error_last_hour: int
    canceled_last_hour: int
    workers: list[WorkerSchema]


class OverviewSchema(BaseModel):
    """The data of a dashboard. None: unknown, as the server of the queue is unavailable; 0: counted, and none."""

    at: datetime
    queued: int
    """Rows of the database, counted up to `AGENTEXEC["COUNT_LIMIT"]`, like `running`; always known."""
    running: int
    complete_last_hour: int | None = None
    error_last_hour: int | None = None
    canceled_last_hour: int | None = None
    workers: list[WorkerSchema] | None = None
    breakers: list[BreakerSchema] | None = None
    """Circuit breakers of models."""
    queues: list[QueueSchema] = Field(default_factory=list)
    minutes: list[MinuteSchema] | None = Field(default=None, description="The last sixty minutes, oldest first.")
    problems: list[str] = Field(default_factory=list)
    """Sentences about problems, such as: no live worker, Redis unavailable."""
    last_known: LastKnownSchema | None = None
    """The latest known values; None if this process has never reached the server of the queue."""

    @property
    def is_live(self) -> bool:
        """Whether the server of the queue has answered, so that all values are known."""
        return self.workers is not None


class HealthCheckSchema(BaseModel):
    """The result of one health check."""

    name: str
    ok: bool
    essential: bool = True
    """Whether activities cannot run while this check fails; otherwise a failure is a warning."""
    detail: str = ""


class HealthSchema(BaseModel):
    """Whether newly enqueued activities will run."""

    ok: bool
    checks: list[HealthCheckSchema]
    problems: list[str] = Field(default_factory=list)
    """Sentences about other findings, such as invalid entries of workers."""
