"""Whether activities that are enqueued now will run: for load balancers, containers and the person on call."""

from __future__ import annotations

from uuid import uuid4

from django.utils import timezone

from ..activity.store import database
from ..conf import conf
from ..models import Activity
from ..queues import EVICTING_POLICIES, get_queue
from ..tasks.registry import registry
from . import storage
from .entries import WorkerList, worker_list
from .overview import rows_by_queue, unserved, unserved_problem
from .probes import Outcome, Probe, runner
from .reconciliation import PATIENCE, last_failure
from .schemas import HealthCheckSchema, HealthSchema

SAMPLE = 200  # of the oldest due activities, asked for in the queue
PROBE_LEAD, PROBE_SECONDS = "health", 1.0  # what the queue probe writes, and for how long


def health() -> HealthSchema:
    """Return the checks of database, queue, workers, waiting work, reconciler and eviction policy.

    It is not ok if an essential check fails. Never raises for what it checks, and answers within
    `AGENTEXEC["HEALTH_TIMEOUT"]`: the probes run at the same time, each on a connection of its own.
    """
    outcomes = runner.run(PROBES)
    checks = [
        HealthCheckSchema(name=probe.name, ok=outcome.ok, essential=probe.name not in WARNINGS, detail=outcome.detail)
        for probe, outcome in zip(PROBES, outcomes, strict=True)
    ]
    return HealthSchema(
        ok=all(check.ok for check in checks if check.essential),
        checks=checks,
        problems=[problem for outcome in outcomes for problem in outcome.problems],
    )


def _queue() -> Outcome:
    """Write, too: a server whose memory or disk is full answers a ping."""
    queue = get_queue()
    queue.ping()
    queue.try_acquire_leadership(PROBE_LEAD, str(uuid4()), PROBE_SECONDS)
    return Outcome(True, "answers and writes")


def _workers() -> Outcome:
    seen = worker_list()
    alive = f"{sum(worker.is_alive for worker in seen.workers)} alive{_unreadable(seen)}"
    if alone := unserved(seen.workers, conf.QUEUES):
        text = f"{alive}; nobody works on {', '.join(alone)}. Start `manage.py runagentworkers`."
        return Outcome(False, text, seen.problems)
    return Outcome(True, alive, seen.problems)


def _unreadable(seen: WorkerList) -> str:
    return f", {len(seen.unreadable)} with an unreadable entry" if seen.unreadable else ""


def _waiting_work() -> Outcome:
    """Look for due activities in queues that no live worker serves: by the rows, and by the queues that tasks name."""
    with storage.bounded(database()):
        rows = rows_by_queue(Activity.objects.using(database()).due(timezone.now()).managed())
    names = {*rows, *(definition.queue for definition in registry.known())}
    problems = []
    for name in sorted(unserved(worker_list().workers, names)):
        if waiting := rows[name] or get_queue().stats(name).pending:
            problems.append(unserved_problem(name, waiting))
    return Outcome(not problems, " ".join(problems) or "every queue with due activities is served")


def _reconciler() -> Outcome:
    """Look for activities that are due and not in their queue: of these, the reconciler leaves none for long."""
    if failure := last_failure():
        return Outcome(False, f"its latest round failed: {failure}")
    queue, now, lag = get_queue(), timezone.now(), 0.0
    with storage.bounded(database()):
        rows = Activity.objects.using(database()).due(now).managed().order_by("agent_id")
        sample = {row.agent_id: row for row in rows.only("queue", "updated_at", "run_after")[:SAMPLE]}
    for name in {row.queue for row in sample.values()}:
        for agent_id in queue.missing(name, [i for i, row in sample.items() if row.queue == name]):
            since = max(filter(None, (sample[agent_id].updated_at, sample[agent_id].run_after)))
            lag = max(lag, (now - since).total_seconds())
    limit = PATIENCE * conf.RECONCILE_INTERVAL
    return Outcome(lag <= limit, f"lag {lag:.0f} s of {limit:.0f} s allowed")


def _eviction() -> Outcome:
    policy = get_queue().eviction_policy()
    if policy in EVICTING_POLICIES:
        return Outcome(False, f"{policy}: a full Redis drops waiting activities. Set maxmemory-policy to noeviction.")
    return Outcome(True, policy or "never evicts")


PROBES = (
    Probe("database", storage.can_read_and_write),
    Probe("queue", _queue),
    Probe("workers", _workers),
    Probe("waiting work", _waiting_work),
    Probe("reconciler", _reconciler),
    Probe("eviction policy", _eviction),
)
WARNINGS = frozenset({"eviction policy"})
"""Probes that do not make the whole unhealthy."""
