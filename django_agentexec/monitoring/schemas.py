"""The wire shapes of monitoring. Ages, waits and durations are in seconds."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class WorkerSchema(BaseModel):
    """A worker process, as its last heartbeat told."""

    id: str
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    """Activities it runs at once, at most."""
    running: int
    done: int
    """Activities that it has completed since its start."""
    failed: int
    """Attempts that failed in it since its start."""
    quarantine: bool
    """Whether it runs only what has taken a process down."""
    started_at: datetime
    last_beat_at: datetime
    is_alive: bool
    """Whether it has sent a heartbeat within the time of a lease."""


class QueueSchema(BaseModel):
    """A queue: what waits, what runs, and how fast it goes. None: unknown, as the queue's server does not answer."""

    name: str
    pending: int | None = None
    """Activities that could run now, but for a slot or their lock key."""
    ready: int | None = None
    """Of these, lines (lock keys, or single activities) whose turn it is."""
    delayed: int | None = None
    """Activities whose time has not come."""
    running: int | None = None
    suspects: int | None = None
    """Activities that have taken a process down and wait for one of their own."""
    dead: int | None = None
    oldest_age: float | None = None
    """How long the oldest activity that is due has waited, or None if none waits; from the database."""
    per_minute: float | None = None
    """Activities that ended in the last five minutes, per minute."""
    waiting_rows: int = 0
    """Queued activities among the oldest `AGENTEXEC["COUNT_LIMIT"]`, delayed ones included; from the database."""
    running_rows: int = 0
    """Running activities, in the same way."""


class MinuteSchema(BaseModel):
    """One minute of all queues."""

    start: datetime
    enqueued: int = 0
    complete: int = 0
    error: int = 0
    canceled: int = 0
    wait_p50: float | None = None
    """Half of the activities that started waited no longer than this; None if none started."""
    wait_p95: float | None = None


class LastKnownSchema(BaseModel):
    """The live part of an overview as this process has last seen it."""

    at: datetime
    complete_last_hour: int
    error_last_hour: int
    canceled_last_hour: int
    workers: list[WorkerSchema]


class OverviewSchema(BaseModel):
    """What a dashboard shows. None: unknown, as the queue's server does not answer; 0: counted, and none."""

    at: datetime
    queued: int
    """Rows of the database, counted up to `AGENTEXEC["COUNT_LIMIT"]`, as is `running`; they are always known."""
    running: int
    complete_last_hour: int | None = None
    error_last_hour: int | None = None
    canceled_last_hour: int | None = None
    workers: list[WorkerSchema] | None = None
    queues: list[QueueSchema] = Field(default_factory=list)
    minutes: list[MinuteSchema] | None = Field(default=None, description="The last sixty minutes, the oldest first.")
    problems: list[str] = Field(default_factory=list)
    """What is wrong, in words: no worker alive, Redis unavailable."""
    last_known: LastKnownSchema | None = None
    """The latest known values; None if this process has never reached the queue's server."""

    @property
    def is_live(self) -> bool:
        """Whether the queue's server has answered: nothing in here is unknown."""
        return self.workers is not None


class HealthCheckSchema(BaseModel):
    """One thing that must be well."""

    name: str
    ok: bool
    essential: bool = True
    """Whether nothing runs as long as this is not ok; what is not essential is a warning."""
    detail: str = ""


class HealthSchema(BaseModel):
    """Whether activities that are enqueued now will run."""

    ok: bool
    checks: list[HealthCheckSchema]
    problems: list[str] = Field(default_factory=list)
    """What else a person should look at, such as workers' entries that cannot be read."""
