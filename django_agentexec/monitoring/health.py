"""Whether activities that are enqueued now will run: for load balancers, containers and whoever is on call."""

from __future__ import annotations

from collections.abc import Callable

from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..models import Activity
from ..queues import EVICTING_POLICIES, get_queue
from .overview import unserved, workers
from .schemas import HealthCheckSchema, HealthSchema

SAMPLE = 200  # of the oldest due activities, asked for in the queue
PATIENCE = 3  # intervals of the reconciler after which a row that is missing in its queue is a fault


def health() -> HealthSchema:
    """Return the checks of database, queue, workers, eviction policy and reconciler.

    It is not ok if an essential check fails. Never raises for what it checks; two queries.
    """
    checks = [
        _checked("database", _database),
        _checked("queue", _queue),
        _checked("workers", _workers),
        _checked("reconciler", _reconciler),
        _checked("eviction policy", _eviction, essential=False),
    ]
    return HealthSchema(ok=all(check.ok for check in checks if check.essential), checks=checks)


def _checked(name: str, check: Callable[[], tuple[bool, str]], *, essential: bool = True) -> HealthCheckSchema:
    try:
        ok, detail = check()
    except (QueueUnavailable, DatabaseError, InterfaceError) as error:
        ok, detail = False, str(error)
    return HealthCheckSchema(name=name, ok=ok, essential=essential, detail=detail)


def _database() -> tuple[bool, str]:
    Activity.objects.exists()
    return True, "answers"


def _queue() -> tuple[bool, str]:
    get_queue().ping()
    return True, "answers"


def _workers() -> tuple[bool, str]:
    seen = workers()
    alive = sum(worker.is_alive for worker in seen)
    if alone := unserved(seen, conf.QUEUES):
        return False, f"{alive} alive; nobody works on {', '.join(alone)}. Start `manage.py runagentworkers`."
    return True, f"{alive} alive"


def _reconciler() -> tuple[bool, str]:
    """Look for activities that are due and not in their queue: of these, the reconciler leaves none for long."""
    queue, now, lag = get_queue(), timezone.now(), 0.0
    rows = Activity.objects.all().due(now).dispatched().order_by("agent_id")
    sample = {row.agent_id: row for row in rows.only("queue", "updated_at", "run_after")[:SAMPLE]}
    for name in {row.queue for row in sample.values()}:
        for agent_id in queue.missing(name, [i for i, row in sample.items() if row.queue == name]):
            since = max(filter(None, (sample[agent_id].updated_at, sample[agent_id].run_after)))
            lag = max(lag, (now - since).total_seconds())
    limit = PATIENCE * conf.RECONCILE_INTERVAL
    return lag <= limit, f"lag {lag:.0f} s of {limit:.0f} s allowed"


def _eviction() -> tuple[bool, str]:
    policy = get_queue().eviction_policy()
    if policy in EVICTING_POLICIES:
        return False, f"{policy}: a full Redis drops waiting activities. Set maxmemory-policy to noeviction."
    return True, policy or "never evicts"
