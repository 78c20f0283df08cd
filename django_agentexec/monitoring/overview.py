"""Workers, queues, and the overview that a dashboard shows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from django.utils import timezone

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..models import Activity
from ..queues import QueueStats, get_queue
from .counters import LastHour, last_hour
from .schemas import OverviewSchema, QueueSchema, WorkerSchema

OLDEST = 1_000  # waiting rows that are looked at to tell each queue's oldest
_NOTHING = QueueStats(ready=0, pending=0, suspects=0, leased=0, delayed=0, dead=0)


def workers() -> list[WorkerSchema]:
    """Return the worker processes that have beaten in the last five minutes. Raises `QueueUnavailable`."""
    reading = get_queue().workers()
    return [
        WorkerSchema(
            started_at=datetime.fromtimestamp(worker.started, UTC),
            last_beat_at=datetime.fromtimestamp(worker.last_beat, UTC),
            is_alive=reading.now - worker.last_beat <= conf.LEASE,  # both by the queue's clock
            **{name: value for name, value in worker.as_dict().items() if name not in ("started", "last_beat")},
        )
        for worker in reading
    ]


def queues() -> list[QueueSchema]:
    """Return the queues of the settings and of the workers, by name. Raises `QueueUnavailable`."""
    return _queues(workers(), last_hour())


def overview() -> OverviewSchema:
    """Return what a dashboard shows; when the queue is away, what the database knows, and the problem.

    Three queries, and one round trip per queue and three more.
    """
    seen, passed, lines, problems = [], LastHour([], {}), [], []
    try:
        seen, passed = workers(), last_hour()
        lines = _queues(seen, passed)
        problems = _problems(seen, lines)
    except QueueUnavailable as error:
        problems = [str(error)]
    counted = Activity.objects.all()
    return OverviewSchema(
        at=timezone.now(),
        queued=counted.queued().bounded_count(conf.COUNT_LIMIT),
        running=counted.running().bounded_count(conf.COUNT_LIMIT),
        complete_last_hour=sum(minute.complete for minute in passed.minutes),
        error_last_hour=sum(minute.error for minute in passed.minutes),
        canceled_last_hour=sum(minute.canceled for minute in passed.minutes),
        workers=seen,
        queues=lines,
        minutes=passed.minutes,
        problems=problems,
    )


def unserved(seen: Iterable[WorkerSchema], names: Iterable[str]) -> list[str]:
    """Return those of the queues `names` that no living worker listens to."""
    served = {name for worker in seen if worker.is_alive and not worker.quarantine for name in worker.queues}
    return [name for name in names if name not in served]


def _queues(seen: list[WorkerSchema], passed: LastHour) -> list[QueueSchema]:
    names = sorted({*conf.QUEUES, *(name for worker in seen for name in worker.queues), *passed.per_minute} - {""})
    ages = _oldest_ages()
    return [_queue(name, get_queue().stats(name), ages.get(name), passed.per_minute.get(name, 0.0)) for name in names]


def _queue(name: str, stats: QueueStats, oldest_age: float | None, per_minute: float) -> QueueSchema:
    return QueueSchema(
        name=name,
        pending=stats.pending,
        ready=stats.ready,
        delayed=stats.delayed,
        running=stats.leased,
        suspects=stats.suspects,
        dead=stats.dead,
        oldest_age=oldest_age,
        per_minute=per_minute,
    )


def _oldest_ages() -> dict[str, float]:
    """Return how long the oldest waiting activity of each queue has been due, in seconds; one query."""
    now = timezone.now()
    rows = Activity.objects.all().due(now).dispatched().order_by("agent_id")
    ages: dict[str, float] = {}
    for queue, queued_at, run_after in rows.values_list("queue", "latest_log_timestamp", "run_after")[:OLDEST]:
        since = max(filter(None, (queued_at, run_after)), default=now)
        ages[queue] = max(ages.get(queue, 0.0), (now - since).total_seconds())
    return ages


def _problems(seen: list[WorkerSchema], lines: list[QueueSchema]) -> list[str]:
    waiting = [line.name for line in lines if line.pending or line.delayed]
    problems = [f"Nobody works on queue {name!r}." for name in unserved(seen, dict.fromkeys([*conf.QUEUES, *waiting]))]
    return problems + [f"Worker {worker.id} has been silent for too long." for worker in seen if not worker.is_alive]
