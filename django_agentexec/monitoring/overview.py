"""Workers, queues, and the overview for a dashboard. Unknown values are None, never 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..models import Activity, ActivityQuerySet, WaitingFor
from ..queues import Queue, QueueStats, get_queue
from ..queues.breakers import BreakerState
from ..resilience.options import breaker_options
from .counters import LastHour, last_hour
from .entries import WorkerList, worker_list
from .limits import limit_problems
from .schemas import BreakerSchema, LastKnownSchema, OverviewSchema, QueueSchema, WorkerSchema

MAX_OLDEST = 1_000  # waiting rows that are read to find the oldest row of each queue
_last_known: WeakKeyDictionary[Queue, LastKnownSchema] = WeakKeyDictionary()


def workers() -> list[WorkerSchema]:
    """Return the worker processes with a heartbeat in the last five minutes. Raises `QueueUnavailable`."""
    return worker_list().workers


def queues() -> list[QueueSchema]:
    """Return the queues of the settings, the workers and the rows, by name. Raises `QueueUnavailable`."""
    return _queues(rows_by_queue(Activity.objects.queued()), Counter(), workers(), last_hour())


def overview() -> OverviewSchema:
    """Return the data of a dashboard. Without the queue: the values from the database, and the problem.

    Three queries, and one round trip per queue and limit of models, plus four.
    """
    queued, running = rows_by_queue(Activity.objects.queued()), rows_by_queue(Activity.objects.running())
    shown = OverviewSchema(at=timezone.now(), queued=queued.total(), running=running.total())
    try:
        found, hour, refusals = worker_list(), last_hour(), limit_problems()
        lines = _queues(queued, running, found.workers, hour)
        shown.breakers = breakers()
    except QueueUnavailable as error:
        shown.queues = _queues(queued, running)
        shown.problems = [str(error)]
        shown.last_known = _last_known.get(get_queue())
        return shown
    shown.queues = lines
    shown.problems = [*_problems(found, lines), *refusals, *map(breaker_problem, open_breakers(shown.breakers))]
    shown.complete_last_hour = sum(minute.complete for minute in hour.minutes)
    shown.error_last_hour = sum(minute.error for minute in hour.minutes)
    shown.canceled_last_hour = sum(minute.canceled for minute in hour.minutes)
    shown.workers, shown.minutes = found.workers, hour.minutes
    shown.last_known = _last_known[get_queue()] = LastKnownSchema.model_validate(shown, from_attributes=True)
    return shown


def breakers() -> list[BreakerSchema]:
    """Return the circuit breakers of models, by name. One round trip. Raises `QueueUnavailable`."""
    found = get_queue().breakers.read(breaker_options())
    return [BreakerSchema.model_validate(each, from_attributes=True) for each in found]


def open_breakers(found: Iterable[BreakerSchema]) -> list[BreakerSchema]:
    """Return the breakers that are not closed."""
    return [each for each in found if each.state != BreakerState.CLOSED]


def breaker_problem(breaker: BreakerSchema) -> str:
    """Return a sentence about a breaker that is not closed."""
    text = _("Model %(model)s is not called since it fails (%(reason)s): its circuit breaker is open.")
    if breaker.state == BreakerState.HALF_OPEN:
        text = _("Model %(model)s has failed (%(reason)s): a single call decides whether it is called again.")
    return text % {"model": breaker.name, "reason": breaker.reason or "?"}


def rows_by_queue(activities: ActivityQuerySet) -> Counter[str]:
    """Count the oldest `COUNT_LIMIT` of `activities` by queue. One query.

    The database does not group the rows, since it would read all of them. Activities in an unserved queue stay there
    and are therefore soon among the oldest.
    """
    return Counter(activities.order_by("agent_id").values_list("queue", flat=True)[: conf.COUNT_LIMIT])


def waiting_by_reason() -> Counter[str]:
    """Count the suspended activities by the reason of their wait, up to `COUNT_LIMIT`. One query."""
    reasons = Activity.objects.suspended().order_by().values_list("waiting_for", flat=True)
    return Counter(reason or WaitingFor.CHILDREN.value for reason in reasons[: conf.COUNT_LIMIT])


def unserved(workers: Iterable[WorkerSchema], names: Iterable[str]) -> list[str]:
    """Return the queues among `names` that no live worker serves."""
    served = {name for worker in workers if worker.is_alive and not worker.quarantine for name in worker.queues}
    return [name for name in names if name not in served]


def _queues(
    queued: Counter[str],
    running: Counter[str],
    found: list[WorkerSchema] | None = None,
    hour: LastHour | None = None,
) -> list[QueueSchema]:
    """Return the state of each queue; without `found` and `hour`, only the values from the rows."""
    names = {*conf.QUEUES, *queued, *running, *(hour.per_minute if hour else ())}
    names.update(name for worker in found or () for name in worker.queues)
    ages = _oldest_ages()
    lines = []
    for name in sorted(names - {""}):
        stats = get_queue().stats(name) if hour else None
        line = QueueSchema(name=name, waiting_rows=queued[name], running_rows=running[name], oldest_age=ages.get(name))
        if hour and stats:
            line.per_minute = hour.per_minute.get(name, 0.0)
            _fill(line, stats)
        lines.append(line)
    return lines


def _fill(line: QueueSchema, stats: QueueStats) -> None:
    line.pending, line.ready, line.delayed = stats.pending, stats.ready, stats.delayed
    line.running, line.suspects, line.dead = stats.leased, stats.suspects, stats.dead


def _oldest_ages() -> dict[str, float]:
    """Return for each queue how long its oldest waiting activity has been due, in seconds. One query."""
    now = timezone.now()
    rows = Activity.objects.all().due(now).managed().order_by("agent_id")
    ages: dict[str, float] = {}
    for queue, queued_at, run_after in rows.values_list("queue", "latest_log_timestamp", "run_after")[:MAX_OLDEST]:
        since = max(filter(None, (queued_at, run_after)), default=now)
        ages[queue] = max(ages.get(queue, 0.0), (now - since).total_seconds())
    return ages


def _problems(found: WorkerList, lines: list[QueueSchema]) -> list[str]:
    waiting = {line.name: max(line.waiting_rows, (line.pending or 0) + (line.delayed or 0)) for line in lines}
    names = dict.fromkeys([*conf.QUEUES, *(name for name, number in waiting.items() if number)])
    problems = [unserved_problem(name, waiting.get(name, 0)) for name in unserved(found.workers, names)]
    text = _("Worker %(worker)s has sent no heartbeat for longer than its lease.")
    problems += [text % {"worker": worker.id} for worker in found.workers if not worker.is_alive]
    return problems + found.problems


def unserved_problem(name: str, waiting: int) -> str:
    """Return a sentence about a queue that no live worker serves."""
    sentence = _("No live worker serves queue %(queue)r.") % {"queue": name}
    if not waiting:
        return sentence
    if waiting >= conf.COUNT_LIMIT:
        text = _("It holds at least %(number)s activities.")
    else:
        text = ngettext("It holds %(number)s activity.", "It holds %(number)s activities.", waiting)
    return f"{sentence} {text % {'number': f'{waiting:,}'}}"
