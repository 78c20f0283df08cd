"""The content of `agentexec monitor` at one moment, and its plain text for files, pipes and `--once`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

from .. import monitoring
from ..activity.store import database
from ..concurrency.rules import note_pauses
from ..models import Activity
from ..monitoring import LastKnownSchema, OverviewSchema, QueueSchema, WorkerSchema
from ..schemas import ActivityListItemSchema
from . import times
from .text import one_line, status_text, table
from .times import time_span

UNKNOWN = gettext_lazy("unknown")
NOTHING_ACTIVE = gettext_lazy("Nothing is running or queued.")
ALIVE = pgettext_lazy("worker", "alive")
SILENT = pgettext_lazy("worker", "silent")
QUARANTINE = pgettext_lazy("worker", "quarantine")


@dataclass(frozen=True)
class Columns:
    """The columns of a table."""

    header: tuple[str | Promise, ...]
    right: frozenset[int]
    """Indexes of the columns that align right."""

    def titles(self) -> list[str]:
        """Return the header in the current language."""
        return [str(title) for title in self.header]


RUNS = Columns(
    (gettext_lazy("status"), gettext_lazy("task"), "%", gettext_lazy("age"), gettext_lazy("message")),
    frozenset({2}),
)
WORKERS = Columns(
    (
        gettext_lazy("worker"),
        gettext_lazy("state"),
        gettext_lazy("running"),
        gettext_lazy("done"),
        gettext_lazy("failed"),
        gettext_lazy("queues"),
        gettext_lazy("last beat"),
    ),
    frozenset({2, 3, 4}),
)
QUEUES = Columns(
    (
        gettext_lazy("queue"),
        gettext_lazy("pending"),
        gettext_lazy("running"),
        gettext_lazy("delayed"),
        gettext_lazy("dead"),
        gettext_lazy("oldest"),
        gettext_lazy("per minute"),
    ),
    frozenset({1, 2, 3, 4, 5, 6}),
)


@dataclass(frozen=True)
class Snapshot:
    """Active runs, workers and queues. `overview` is None while the database is unavailable."""

    overview: OverviewSchema | None
    activities: list[ActivityListItemSchema] = field(default_factory=list)
    database_problem: str = ""

    @property
    def problems(self) -> list[str]:
        """The present problems, one line each."""
        problems = [self.database_problem, *(self.overview.problems if self.overview else [])]
        return [one_line(problem) for problem in problems if problem]

    def as_json(self) -> dict[str, Any]:
        """Return the wire shapes: an overview, and the items of a list."""
        overview = self.overview.model_dump(mode="json") if self.overview else None
        return {"overview": overview, "activities": [item.model_dump(mode="json") for item in self.activities]}


def take(limit: int) -> Snapshot:
    """Return a snapshot with up to `limit` active runs. Raises Django's `DatabaseError`."""
    rows = Activity.objects.using(database()).without_payloads()
    # Running activities, newest first, then queued activities, oldest first: both in the order of an index.
    active = list(rows.running().order_by("-agent_id")[:limit])
    active += rows.queued().order_by("agent_id")[: limit - len(active)]
    note_pauses(active)
    return Snapshot(monitoring.overview(), [ActivityListItemSchema.model_validate(row) for row in active])


def take_or_report(limit: int) -> Snapshot:
    """Return a snapshot, or one that reports the problem while the database is unavailable."""
    try:
        return take(limit)
    except (DatabaseError, InterfaceError) as error:
        connections[database()].close()
        problem = _("The database does not answer: %(error)s") % {"error": error}
        return Snapshot(None, database_problem=problem)


def headline(snapshot: Snapshot) -> str:
    """Return the counts in one line. Without the queue, only the rows can be counted."""
    seen = snapshot.overview
    if seen is None:
        return "-"
    rows = _("%(running)s running, %(queued)s queued") % {
        "running": f"{seen.running:,}",
        "queued": f"{seen.queued:,}",
    }
    if seen.workers is None:
        return _("%(rows)s, workers and last hour unknown") % {"rows": rows}
    text = _("%(rows)s, %(workers)s; last hour: %(complete)s complete, %(error)s error, %(canceled)s canceled")
    return text % {"rows": rows, **_counts(seen, seen.workers)}


def last_known(snapshot: Snapshot) -> str:
    """Return the last known values, with their time, while the present values are unknown; else ""."""
    seen = snapshot.overview
    if seen is None or seen.is_live or seen.last_known is None:
        return ""
    known = seen.last_known
    text = _(
        "Last known at %(time)s %(zone)s: %(workers)s; in the hour before: %(complete)s complete, "
        "%(error)s error, %(canceled)s canceled"
    )
    return text % {"time": times.clock(known.at), "zone": times.zone(), **_counts(known, known.workers)}


def _counts(seen: OverviewSchema | LastKnownSchema, workers: list[WorkerSchema]) -> dict[str, object]:
    alive = sum(worker.is_alive for worker in workers)
    return {
        "workers": ngettext("%(number)s worker", "%(number)s workers", alive) % {"number": alive},
        "complete": f"{seen.complete_last_hour:,}",
        "error": f"{seen.error_last_hour:,}",
        "canceled": f"{seen.canceled_last_hour:,}",
    }


def as_text(snapshot: Snapshot, cells: int | None = None) -> str:
    """Return the snapshot as plain text, no line longer than `cells`, if given."""
    parts = [f"{times.now():%H:%M:%S} {times.zone()}  {headline(snapshot)}"]
    parts += [f"! {problem}" for problem in snapshot.problems]
    parts += [text for text in [last_known(snapshot)] if text]
    if snapshot.activities:
        parts.append(_table(RUNS, [run_row(item) for item in snapshot.activities], cells))
    elif snapshot.overview:
        parts.append(str(NOTHING_ACTIVE))
    if snapshot.overview and snapshot.overview.workers:
        parts.append(_table(WORKERS, [worker_row(worker) for worker in snapshot.overview.workers], cells))
    if snapshot.overview and snapshot.overview.queues:
        parts.append(_table(QUEUES, [queue_row(queue) for queue in snapshot.overview.queues], cells))
    return "\n\n".join(parts) + "\n"


def _table(columns: Columns, rows: list[list[object]], cells: int | None) -> str:
    return table(columns.titles(), rows, right=columns.right, cells=cells)


def run_row(item: ActivityListItemSchema) -> list[object]:
    """Return the cells of `RUNS`."""
    return [
        status_text(item),
        item.agent_type,
        item.percentage,
        time_span(run_age(item)),
        item.latest_log_message or "",
    ]


def run_age(item: ActivityListItemSchema) -> float:
    """Return the seconds since the start or, while it is queued, since the creation."""
    return (timezone.now() - (item.started_at or item.created_at)).total_seconds()


def worker_row(worker: WorkerSchema) -> list[object]:
    """Return the cells of `WORKERS`."""
    running = f"{worker.running}/{worker.concurrency}"
    queues = ",".join(worker.queues)
    return [worker.id, worker_state(worker), running, worker.done, worker.failed, queues, ago(worker.last_beat_at)]


def worker_state(worker: WorkerSchema) -> str | Promise:
    """Return the state of a worker: `ALIVE`, `SILENT` or `QUARANTINE`."""
    if not worker.is_alive:
        return SILENT
    return QUARANTINE if worker.quarantine else ALIVE


def ago(moment: datetime) -> str:
    """Return the time since a heartbeat; heartbeats are in UTC, also where USE_TZ is off."""
    return _("%(age)s ago") % {"age": time_span((datetime.now(UTC) - moment).total_seconds())}


def queue_row(queue: QueueSchema) -> list[object]:
    """Return the cells of `QUEUES`."""
    waiting = None if queue.pending is None or queue.suspects is None else queue.pending + queue.suspects
    numbers = [UNKNOWN if number is None else number for number in (waiting, queue.running, queue.delayed, queue.dead)]
    rate = UNKNOWN if queue.per_minute is None else f"{queue.per_minute:.1f}"
    return [queue.name, *numbers, time_span(queue.oldest_age), rate]
