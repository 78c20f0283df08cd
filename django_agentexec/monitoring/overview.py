"""Workers, queues, and the overview that a dashboard shows. What cannot be known at present is None, never 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from django.utils import timezone

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..models import Activity, ActivityQuerySet
from ..queues import Queue, QueueStats, get_queue
from .counters import LastHour, last_hour
from .entries import WorkerList, worker_list
from .schemas import LastKnownSchema, OverviewSchema, QueueSchema, WorkerSchema

OLDEST = 1_000  # waiting rows that are looked at to tell each queue's oldest
_last_known: WeakKeyDictionary[Queue, LastKnownSchema] = WeakKeyDictionary()


def workers() -> list[WorkerSchema]:
    """Return the worker processes that have sent a heartbeat in the last five minutes. Raises `QueueUnavailable`."""
    return worker_list().workers


def queues() -> list[QueueSchema]:
    """Return the queues of the settings, of the workers and of the rows, by name. Raises `QueueUnavailable`."""
    return _queues(rows_by_queue(Activity.objects.queued()), Counter(), workers(), last_hour())


def overview() -> OverviewSchema:
    """Return what a dashboard shows. Without the queue: what the database knows, the problem, and unknown values.

    Three queries, and one round trip per queue and three more.
    """
    queued, running = rows_by_queue(Activity.objects.queued()), rows_by_queue(Activity.objects.running())
    shown = OverviewSchema(at=timezone.now(), queued=queued.total(), running=running.total())
    try:
        seen, passed = worker_list(), last_hour()
        lines = _queues(queued, running, seen.workers, passed)
    except QueueUnavailable as error:
        shown.queues = _queues(queued, running)
        shown.problems = [str(error)]
        shown.last_known = _last_known.get(get_queue())
        return shown
    shown.queues = lines
    shown.problems = _problems(seen, lines)
    shown.complete_last_hour = sum(minute.complete for minute in passed.minutes)
    shown.error_last_hour = sum(minute.error for minute in passed.minutes)
    shown.canceled_last_hour = sum(minute.canceled for minute in passed.minutes)
    shown.workers, shown.minutes = seen.workers, passed.minutes
    shown.last_known = _last_known[get_queue()] = LastKnownSchema.model_validate(shown, from_attributes=True)
    return shown


def rows_by_queue(activities: ActivityQuerySet) -> Counter[str]:
    """Return how many of `activities` each queue has: of the oldest `COUNT_LIMIT`; one query.

    Not grouped by the database, which would read a million rows for it. What no worker serves stays where it is, and
    so is soon among the oldest.
    """
    return Counter(activities.order_by("agent_id").values_list("queue", flat=True)[: conf.COUNT_LIMIT])


def unserved(seen: Iterable[WorkerSchema], names: Iterable[str]) -> list[str]:
    """Return those of the queues `names` that no live worker serves."""
    served = {name for worker in seen if worker.is_alive and not worker.quarantine for name in worker.queues}
    return [name for name in names if name not in served]


def _queues(
    queued: Counter[str],
    running: Counter[str],
    seen: list[WorkerSchema] | None = None,
    passed: LastHour | None = None,
) -> list[QueueSchema]:
    """Return a line per queue; without `seen` and `passed`, of what the rows tell."""
    names = {*conf.QUEUES, *queued, *running, *(passed.per_minute if passed else ())}
    names.update(name for worker in seen or () for name in worker.queues)
    ages = _oldest_ages()
    lines = []
    for name in sorted(names - {""}):
        stats = get_queue().stats(name) if passed else None
        line = QueueSchema(name=name, waiting_rows=queued[name], running_rows=running[name], oldest_age=ages.get(name))
        if passed and stats:
            line.per_minute = passed.per_minute.get(name, 0.0)
            _fill(line, stats)
        lines.append(line)
    return lines


def _fill(line: QueueSchema, stats: QueueStats) -> None:
    line.pending, line.ready, line.delayed = stats.pending, stats.ready, stats.delayed
    line.running, line.suspects, line.dead = stats.leased, stats.suspects, stats.dead


def _oldest_ages() -> dict[str, float]:
    """Return how long the oldest waiting activity of each queue has been due, in seconds; one query."""
    now = timezone.now()
    rows = Activity.objects.all().due(now).managed().order_by("agent_id")
    ages: dict[str, float] = {}
    for queue, queued_at, run_after in rows.values_list("queue", "latest_log_timestamp", "run_after")[:OLDEST]:
        since = max(filter(None, (queued_at, run_after)), default=now)
        ages[queue] = max(ages.get(queue, 0.0), (now - since).total_seconds())
    return ages


def _problems(seen: WorkerList, lines: list[QueueSchema]) -> list[str]:
    waiting = {line.name: max(line.waiting_rows, (line.pending or 0) + (line.delayed or 0)) for line in lines}
    names = dict.fromkeys([*conf.QUEUES, *(name for name, number in waiting.items() if number)])
    problems = [unserved_problem(name, waiting.get(name, 0)) for name in unserved(seen.workers, names)]
    problems += [f"Worker {w.id} has been silent for too long." for w in seen.workers if not w.is_alive]
    return problems + seen.problems


def unserved_problem(name: str, waiting: int) -> str:
    """Return a sentence about a queue that no live worker serves."""
    sentence = f"Nobody works on queue {name!r}."
    if not waiting:
        return sentence
    number = f"at least {waiting:,} activities" if waiting >= conf.COUNT_LIMIT else f"{waiting:,} activities"
    return f"{sentence} It holds {'1 activity' if waiting == 1 else number}."
