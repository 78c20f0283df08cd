"""Health checks: whether newly enqueued activities will run. For load balancers, containers and people on call."""

from __future__ import annotations

from uuid import uuid4

from django.utils import timezone
from django.utils.translation import gettext as _

from ..activity.store import database
from ..conf import conf
from ..models import Activity
from ..queues import EVICTING_POLICIES, get_queue
from ..tasks.registry import registry
from . import storage
from .entries import worker_list
from .limits import limit_usage
from .overview import breaker_problem, breakers, open_breakers, rows_by_queue, unserved, unserved_problem
from .probes import Outcome, Probe, runner
from .reconciliation import MAX_MISSED_INTERVALS, last_failure
from .schemas import HealthCheckSchema, HealthSchema

SAMPLE_SIZE = 200  # of the oldest due activities, which are looked up in the queue
PROBE_LEADERSHIP, PROBE_SECONDS = "health", 1.0  # the leadership that the queue probe acquires, and its duration


def health() -> HealthSchema:
    """Return the checks of database, queue, workers, waiting work, reconciler, eviction policy and models.

    The result is not ok if an essential check fails. A failed check raises no exception. Returns within
    `AGENTEXEC["HEALTH_TIMEOUT"]` seconds: the probes run concurrently, each on a separate connection.
    """
    probes = (*PROBES, LIMITS_PROBE) if conf.MODEL_LIMITS else PROBES
    outcomes = runner.run(probes)
    checks = [
        HealthCheckSchema(name=probe.name, ok=outcome.ok, essential=probe.name not in WARNINGS, detail=outcome.detail)
        for probe, outcome in zip(probes, outcomes, strict=True)
    ]
    return HealthSchema(
        ok=all(check.ok for check in checks if check.essential),
        checks=checks,
        problems=[problem for outcome in outcomes for problem in outcome.problems],
    )


def _queue() -> Outcome:
    """Ping the server and write to it: a server whose memory or disk is full still answers a ping."""
    queue = get_queue()
    queue.ping()
    queue.try_acquire_leadership(PROBE_LEADERSHIP, str(uuid4()), PROBE_SECONDS)
    return Outcome(True, _("reachable and writable"))


def _workers() -> Outcome:
    found = worker_list()
    detail = _("%(number)d alive") % {"number": sum(worker.is_alive for worker in found.workers)}
    if found.unreadable:
        detail += _(", %(number)d with an invalid entry") % {"number": len(found.unreadable)}
    if names := unserved(found.workers, conf.QUEUES):
        text = _("; no live worker serves %(queues)s. Start `manage.py runagentworkers`.")
        return Outcome(False, detail + text % {"queues": ", ".join(names)}, found.problems)
    return Outcome(True, detail, found.problems)


def _waiting_work() -> Outcome:
    """Find due activities in queues without a live worker, by the rows and by the queues of the registered tasks."""
    with storage.bounded(database()):
        rows = rows_by_queue(Activity.objects.using(database()).due(timezone.now()).managed())
    names = {*rows, *(definition.queue for definition in registry.known())}
    problems = []
    for name in sorted(unserved(worker_list().workers, names)):
        if waiting := rows[name] or get_queue().stats(name).pending:
            problems.append(unserved_problem(name, waiting))
    return Outcome(not problems, " ".join(problems) or _("every queue with due activities is served"))


def _reconciler() -> Outcome:
    """Find due activities that are missing in their queue, where the reconciler should have pushed them."""
    if failure := last_failure():
        return Outcome(False, _("the latest run failed: %(error)s") % {"error": failure})
    queue, now, lag = get_queue(), timezone.now(), 0.0
    with storage.bounded(database()):
        rows = Activity.objects.using(database()).due(now).managed().order_by("agent_id")
        sample = {row.agent_id: row for row in rows.only("queue", "updated_at", "run_after")[:SAMPLE_SIZE]}
    for name in {row.queue for row in sample.values()}:
        for agent_id in queue.missing(name, [i for i, row in sample.items() if row.queue == name]):
            since = max(filter(None, (sample[agent_id].updated_at, sample[agent_id].run_after)))
            lag = max(lag, (now - since).total_seconds())
    limit = MAX_MISSED_INTERVALS * conf.RECONCILE_INTERVAL
    return Outcome(lag <= limit, _("lag %(lag).0f s; the limit is %(limit).0f s") % {"lag": lag, "limit": limit})


def _models() -> Outcome:
    """Find models whose circuit breaker is open: `ResilientModel` calls others in their place, if there are any."""
    found = breakers()
    if failing := open_breakers(found):
        return Outcome(False, " ".join(map(breaker_problem, failing)))
    return Outcome(True, _("%(number)d called, no open circuit breaker") % {"number": len(found)})


def _eviction() -> Outcome:
    policy = get_queue().eviction_policy()
    if policy in EVICTING_POLICIES:
        text = _("%(policy)s: a full Redis drops waiting activities. Set maxmemory-policy to noeviction.")
        return Outcome(False, text % {"policy": policy})
    return Outcome(True, policy or _("never evicts"))


def _limits() -> Outcome:
    found = limit_usage()
    is_open = not any(each.usage.closed for each in found)
    return Outcome(is_open, "; ".join(each.text() for each in found) or _("all limits are per tenant"))


PROBES = (
    Probe("database", storage.can_read_and_write),
    Probe("queue", _queue),
    Probe("workers", _workers),
    Probe("waiting work", _waiting_work),
    Probe("reconciler", _reconciler),
    Probe("eviction policy", _eviction),
    Probe("models", _models),
)
LIMITS_PROBE = Probe("model limits", _limits)
WARNINGS = frozenset({"eviction policy", "models", LIMITS_PROBE.name})
"""Probes whose failure is only a warning."""
