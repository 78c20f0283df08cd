"""What `agentmonitor` shows, at one moment; and the same as plain text, for files, pipes and `--once`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.utils import timezone

from .. import monitoring
from ..activity.store import database
from ..models import Activity
from ..monitoring import OverviewSchema, QueueSchema, WorkerSchema
from ..schemas import ActivityListItemSchema
from . import times
from .text import age, one_line, table

RUNS_HEADER = ["status", "task", "%", "age", "message"]
WORKERS_HEADER = ["worker", "state", "running", "done", "failed", "queues", "last beat"]
UNKNOWN = "unknown"
NOTHING = "Nothing is running or queued."
QUEUES_HEADER = ["queue", "pending", "running", "delayed", "dead", "oldest", "per minute"]


@dataclass(frozen=True)
class Snapshot:
    """Active runs, workers and queues. `overview` is None while the database is away."""

    overview: OverviewSchema | None
    activities: list[ActivityListItemSchema] = field(default_factory=list)
    trouble: str = ""

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        return [
            one_line(problem)
            for problem in [self.trouble, *(self.overview.problems if self.overview else [])]
            if problem
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the wire shapes: an overview, and the items of a list."""
        overview = self.overview.model_dump(mode="json") if self.overview else None
        return {"overview": overview, "activities": [one.model_dump(mode="json") for one in self.activities]}


def take(limit: int) -> Snapshot:
    """Return how things stand, with up to `limit` active runs. Raises Django's `DatabaseError`."""
    rows = Activity.objects.using(database()).without_payloads()
    # What runs, the newest first; then what waits, the oldest first. Both as an index has them, at any backlog.
    active = list(rows.running().order_by("-agent_id")[:limit])
    active += rows.queued().order_by("agent_id")[: limit - len(active)]
    return Snapshot(monitoring.overview(), [ActivityListItemSchema.model_validate(row) for row in active])


def take_or_tell(limit: int) -> Snapshot:
    """Do what `take` does; while the database is away, say so and try anew the next time."""
    try:
        return take(limit)
    except (DatabaseError, InterfaceError) as error:
        connections[database()].close()
        return Snapshot(None, trouble=f"The database does not answer: {error}")


def headline(snapshot: Snapshot) -> str:
    """Return the counts in a line. Rows are counted by the database; the rest is unknown without the queue."""
    seen = snapshot.overview
    if seen is None:
        return "-"
    rows = f"{seen.running:,} running, {seen.queued:,} queued"
    if seen.workers is None:
        return f"{rows}, workers and last hour unknown"
    alive = sum(worker.is_alive for worker in seen.workers)
    return (
        f"{rows}, {alive} workers; last hour: {seen.complete_last_hour:,} "
        f"complete, {seen.error_last_hour:,} error, {seen.canceled_last_hour:,} canceled"
    )


def last_known(snapshot: Snapshot) -> str:
    """Return the latest known values, with their time, while the present ones are unknown; else ""."""
    seen = snapshot.overview
    if seen is None or seen.is_live or seen.last_known is None:
        return ""
    known = seen.last_known
    alive = sum(worker.is_alive for worker in known.workers)
    return (
        f"Last known at {times.clock(known.at)} {times.zone()}: {alive} workers; in the hour before: "
        f"{known.complete_last_hour:,} complete, {known.error_last_hour:,} error, {known.canceled_last_hour:,} canceled"
    )


def as_text(snapshot: Snapshot, cells: int | None = None) -> str:
    """Return all of it as plain text, no line longer than `cells`, if given."""
    parts = [f"{times.now():%H:%M:%S} {times.zone()}  {headline(snapshot)}"]
    parts += [f"! {problem}" for problem in snapshot.problems]
    parts += [text for text in [last_known(snapshot)] if text]
    if snapshot.activities:
        parts.append(table(RUNS_HEADER, [run_row(one) for one in snapshot.activities], right="%", cells=cells))
    elif snapshot.overview:
        parts.append(NOTHING)
    if snapshot.overview and snapshot.overview.workers:
        rows = [worker_row(worker) for worker in snapshot.overview.workers]
        parts.append(table(WORKERS_HEADER, rows, right="running done failed", cells=cells))
    if snapshot.overview and snapshot.overview.queues:
        rows = [queue_row(queue) for queue in snapshot.overview.queues]
        parts.append(table(QUEUES_HEADER, rows, right="pending running delayed dead oldest", cells=cells))
    return "\n\n".join(parts) + "\n"


def run_row(item: ActivityListItemSchema) -> list[object]:
    """Return the columns of `RUNS_HEADER`."""
    return [item.status, item.agent_type, item.percentage, age(run_age(item)), item.latest_log_message or ""]


def run_age(item: ActivityListItemSchema) -> float:
    """Return the seconds since its start, or, while it waits, since it was created."""
    return (timezone.now() - (item.started_at or item.created_at)).total_seconds()


def worker_row(worker: WorkerSchema) -> list[object]:
    """Return the columns of `WORKERS_HEADER`."""
    beat = (datetime.now(UTC) - worker.last_beat_at).total_seconds()
    running = f"{worker.running}/{worker.concurrency}"
    queues = ",".join(worker.queues)
    return [worker.id, worker_state(worker), running, worker.done, worker.failed, queues, f"{age(beat)} ago"]


def worker_state(worker: WorkerSchema) -> str:
    """Return how a worker is, in a word."""
    if not worker.is_alive:
        return "silent"
    return "quarantine" if worker.quarantine else "alive"


def queue_row(queue: QueueSchema) -> list[object]:
    """Return the columns of `QUEUES_HEADER`."""
    waiting = None if queue.pending is None or queue.suspects is None else queue.pending + queue.suspects
    numbers = [UNKNOWN if number is None else number for number in (waiting, queue.running, queue.delayed, queue.dead)]
    rate = UNKNOWN if queue.per_minute is None else f"{queue.per_minute:.1f}"
    return [queue.name, *numbers, age(queue.oldest_age), rate]
