"""Metrics of all processes for Prometheus. The queue's server stores the counters, not this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from django.http import HttpResponse
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from rest_framework.request import Request

from .. import monitoring
from ..activity.store import database
from ..budgets.queries import consumption
from ..conf import conf
from ..exceptions import QueueUnavailable
from ..models import Budget, WaitingFor
from ..monitoring import BreakerSchema, Counters, Histogram, LimitUsage, OverviewSchema, WorkerSchema
from ..queues.breakers import BreakerState
from .base import AgentView, FirstRenderer
from .openapi import operation
from .permissions import MayMonitor

MAX_BUDGETS = 1_000
_PLACES = ("pending", "ready", "delayed", "running", "suspects", "dead")


class MetricsView(AgentView):
    """The metrics in the text format of Prometheus."""

    permission_classes = [MayMonitor]
    content_negotiation_class = FirstRenderer

    @operation("get_metrics", {(200, "text/plain"): {"type": "string"}}, errors=[503])
    def get(self, request: Request) -> HttpResponse:
        """Return all metrics as text: enqueued, finished, tokens, cost, wait, duration, depth and workers.

        While the queue's server is unavailable, only the metrics from the database are included.
        """
        registry = CollectorRegistry()
        registry.register(_Snapshot(*_read()))
        if conf.MODEL_LIMITS:
            registry.register(_Limits())
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _read() -> tuple[OverviewSchema, Counters | None]:
    overview = monitoring.overview()
    try:
        return overview, monitoring.counters() if overview.is_live else None
    except QueueUnavailable:
        return overview, None


class _Snapshot(Collector):
    """The metrics of one moment. An unknown value has no sample, since it is not 0."""

    def __init__(self, overview: OverviewSchema, counters: Counters | None) -> None:
        self._overview, self._counters = overview, counters
        self._waiting = monitoring.waiting_by_reason()
        active = Budget.objects.using(database()).filter(is_active=True)
        self._consumption = consumption(list(active[:MAX_BUDGETS]))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        is_up = self._overview.is_live and self._counters is not None
        yield GaugeMetricFamily("agentexec_queue_up", "Whether the queue's server answers.", float(is_up))
        yield self._active_rows()
        yield self._suspended_rows()
        if counters := self._counters:
            yield _counter("enqueued", "Activities enqueued.", ["task", "queue"], counters.enqueued)
            yield _counter("finished", "Activities that ended.", ["task", "queue", "status"], counters.finished)
            yield _counter("tokens", "Tokens used, and requests made to models.", ["task", "kind"], counters.tokens)
            by_model = ["task", "model"]
            yield _counter("model_tokens", "Tokens and requests by model.", [*by_model, "kind"], counters.model_tokens)
            yield _counter("cost_dollars", "Cost of calls whose price is known.", by_model, counters.cost)
            yield _counter("unpriced_tokens", "Tokens without a known price.", by_model, counters.unpriced_tokens)
            yield _histogram("wait_seconds", "From the time an activity is due to its start.", counters.wait)
            yield _histogram("duration_seconds", "From an activity's first start to its end.", counters.duration)
        yield from self._budgets()
        yield from self._queues()
        if self._overview.breakers is not None:
            yield self._breakers(self._overview.breakers)
        if self._overview.workers is not None:
            yield from self._workers(self._overview.workers)

    def _active_rows(self) -> Metric:
        rows = GaugeMetricFamily(
            "agentexec_active_rows", "Active activities in the database, up to COUNT_LIMIT.", labels=["queue", "status"]
        )
        for queue in self._overview.queues:
            rows.add_metric([queue.name, "queued"], queue.waiting_rows)
            rows.add_metric([queue.name, "running"], queue.running_rows)
        return rows

    def _suspended_rows(self) -> Metric:
        rows = GaugeMetricFamily(
            "agentexec_suspended_rows",
            "Suspended activities by what they wait for, up to COUNT_LIMIT.",
            labels=["reason"],
        )
        for reason in WaitingFor.values:
            rows.add_metric([reason], self._waiting[reason])
        return rows

    def _budgets(self) -> Iterator[Metric]:
        labels = ["budget", "unit"]
        limit = GaugeMetricFamily("agentexec_budget_limit", "Limits of active budgets.", labels=labels)
        spent = GaugeMetricFamily("agentexec_budget_spent", "Spent in the current day or month.", labels=labels)
        waiting = GaugeMetricFamily("agentexec_budget_waiting", "Activities that wait for a budget.", labels=labels)
        for budget in self._consumption:
            values = [f"{budget.id}: {budget.name}", budget.unit]
            limit.add_metric(values, float(budget.limit))
            waiting.add_metric(values, budget.waiting)
            if budget.spent is not None:
                spent.add_metric(values, float(budget.spent))
        yield from (limit, spent, waiting)

    def _queues(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("agentexec_queue_activities", "Activities by place.", labels=["queue", "place"])
        oldest = GaugeMetricFamily(
            "agentexec_queue_oldest_age_seconds", "Waiting time of the oldest due activity.", labels=["queue"]
        )
        for queue in self._overview.queues:
            for place in _PLACES:
                if (number := getattr(queue, place)) is not None:
                    depth.add_metric([queue.name, place], number)
            oldest.add_metric([queue.name], queue.oldest_age or 0.0)
        yield depth
        yield oldest

    def _breakers(self, seen: list[BreakerSchema]) -> Metric:
        breakers = GaugeMetricFamily(
            "agentexec_model_breaker",
            "State of a model's circuit breaker; 1 for the current.",
            labels=["model", "state"],
        )
        for breaker in seen:
            for state in BreakerState:
                breakers.add_metric([breaker.name, state.value], float(breaker.state == state))
        return breakers

    def _workers(self, seen: list[WorkerSchema]) -> Iterator[Metric]:
        alive = [worker for worker in seen if worker.is_alive]
        workers = GaugeMetricFamily("agentexec_workers", "Worker processes.", labels=["state"])
        workers.add_metric(["alive"], len(alive))
        workers.add_metric(["silent"], len(seen) - len(alive))
        yield workers
        slots, used = sum(worker.concurrency for worker in alive), sum(worker.running for worker in alive)
        yield GaugeMetricFamily("agentexec_slots", "Slots of the alive workers.", slots)
        yield GaugeMetricFamily("agentexec_slots_used", "Slots that run an activity.", used)


class _Limits(Collector):
    """How full the limits of models are; without the queue's server, no samples."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        kinds = ["limit", "kind"]
        used = GaugeMetricFamily("agentexec_model_limit_used", "Use of a limit of models.", labels=kinds)
        limit = GaugeMetricFamily("agentexec_model_limit", "The limit.", labels=kinds)
        waiting = GaugeMetricFamily("agentexec_model_limit_waiting", "Calls that wait for it.", labels=["limit"])
        closed = GaugeMetricFamily(
            "agentexec_model_limit_closed_seconds", "How long the provider refuses calls.", labels=["limit"]
        )
        for each in _limit_usage():
            for kind, number, most in each.used():
                used.add_metric([each.name, kind], number)
                limit.add_metric([each.name, kind], most)
            waiting.add_metric([each.name], each.usage.waiting)
            closed.add_metric([each.name], each.usage.closed)
        yield from (used, limit, waiting, closed)


def _limit_usage() -> list[LimitUsage]:
    try:
        return monitoring.limit_usage()
    except QueueUnavailable:
        return []


def _counter(name: str, help: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(f"agentexec_{name}", help, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _histogram(name: str, help: str, by_task: dict[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"agentexec_{name}", help, labels=["task"])
    for task, histogram in sorted(by_task.items()):
        cumulated = zip(histogram.bounds, accumulate(histogram.counts), strict=True)
        family.add_metric([task], [(floatToGoString(bound), count) for bound, count in cumulated], histogram.total)
    return family
