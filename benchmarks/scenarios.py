"""The measurements. Each returns its figures by name; rows are committed, as in production."""

from __future__ import annotations

import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import connection
from django.db.models import Max, Min, QuerySet
from django.utils import timezone

from benchmarks.agents import Canceled, Key, Nothing, Pause, canceled, clock, keyed, noop, pause
from benchmarks.pools import all_finished, pool, until
from django_agentexec import activity
from django_agentexec.api.filters import searched
from django_agentexec.conf import conf
from django_agentexec.ids import uuid7
from django_agentexec.models import Activity
from django_agentexec.queues import Ack, Message, Outcome, get_queue

Figures = dict[str, float]
QUEUE = "default"


def idle_latency(samples: int = 300) -> Figures:
    """Milliseconds from the call of enqueue to the start of the handler, on an idle pool of 2 processes."""
    with pool():
        waits = []
        for _ in range(samples):
            called = time.time_ns()
            handle = clock.enqueue(Nothing())
            until(lambda agent_id=handle.agent_id: Activity.objects.finished().filter(pk=agent_id).exists())
            waits.append((Activity.objects.get(pk=handle.agent_id).result - called) / 1e6)
    return {"p50_ms": statistics.median(waits), "p99_ms": statistics.quantiles(waits, n=100)[98]}


def concurrency(slots: int = 100, count: int = 1_000, seconds: float = 0.2) -> Figures:
    """Handlers that wait, at once on average: 1,000 of 0.2 s on 2 processes.

    From the first start to the last end, as the rows say; and from the call of the bulk enqueue on.
    """
    with pool(concurrency=slots):
        started = time.monotonic()
        pause.enqueue_many([Pause(seconds=seconds)] * count)
        until(all_finished)
        elapsed = time.monotonic() - started
    span = Activity.objects.aggregate(first=Min("started_at"), last=Max("finished_at"))
    return {
        "effective": count * seconds / (span["last"] - span["first"]).total_seconds(),
        "effective_with_enqueue": count * seconds / elapsed,
    }


def concurrency_500() -> Figures:
    """The same with 2 x 500 slots."""
    return concurrency(slots=500)


def drain(count: int = 5_000) -> Figures:
    """Handlers that do nothing, per second, by 2 processes."""
    noop.enqueue_many([Nothing()] * count)
    with pool(concurrency=100):
        left = Activity.objects.active().count()
        started = time.monotonic()
        until(all_finished)
        elapsed = time.monotonic() - started
    return {"per_second": left / elapsed}


def keyed_drain(keys: int = 1_000, each: int = 5) -> Figures:
    """1,000 lock keys with 5 activities each, in order, per second."""
    keyed.enqueue_many([Key(key=n % keys) for n in range(keys * each)])
    with pool(concurrency=100):
        left = Activity.objects.active().count()
        started = time.monotonic()
        until(all_finished)
        elapsed = time.monotonic() - started
    return {"per_second": left / elapsed}


def enqueue(count: int = 1_000, bulk: int = 10_000) -> Figures:
    """Enqueues per second, rows included: one by one, and 1,000 per call."""
    one_by_one = _rate(lambda: noop.enqueue(Nothing()), count)
    contexts = [Nothing()] * 1_000
    in_bulk = _rate(lambda: noop.enqueue_many(contexts), bulk // 1_000) * 1_000
    return {"one_by_one_per_second": one_by_one, "bulk_per_second": in_bulk}


def claim_cost(samples: int = 300) -> Figures:
    """Milliseconds of one claim with all lock keys but one busy, by number of keys."""
    figures = {}
    for keys in (100, 10_000, 100_000):
        get_queue().clear()
        get_queue().enqueue(QUEUE, [_message(f"k:{n}") for n in range(keys) for _ in range(2)])
        while get_queue().exchange(QUEUE, "busy", limit=1_000).claimed:
            pass
        times = []
        for _ in range(samples):
            get_queue().enqueue(QUEUE, [_message("k:free")])
            started = time.perf_counter()
            (claimed,) = get_queue().exchange(QUEUE, "w", limit=1).claimed
            times.append((time.perf_counter() - started) * 1e3)
            get_queue().exchange(QUEUE, "w", [Ack(claimed, Outcome.DONE)])
        figures[f"ms_at_{keys}_keys"] = statistics.median(times)
    get_queue().clear()
    figures["ratio_100000_to_100"] = figures["ms_at_100000_keys"] / figures["ms_at_100_keys"]
    return figures


def queue_layer(count: int = 30_000, batch: int = 100) -> Figures:
    """Claims and acknowledgments per second without rows, one process, 100 at a time."""
    get_queue().enqueue(QUEUE, [_message() for _ in range(count)])
    acks: list[Ack] = []
    done = 0
    started = time.monotonic()
    while done < count:
        claims = get_queue().exchange(QUEUE, "w", acks, limit=batch)
        acks = [Ack(claimed, Outcome.DONE) for claimed in claims.claimed]
        done += len(acks)
    get_queue().exchange(QUEUE, "w", acks)
    return {"per_second": count / (time.monotonic() - started)}


def idle_commands(seconds: float = 15.0) -> Figures:
    """Redis commands per second that clients send, 2 idle processes and their pool."""
    client: Any = get_queue().client  # type: ignore[attr-defined]
    with pool():
        before = _client_commands(client)
        time.sleep(seconds)
        sent = _client_commands(client) - before
    return {"per_second": sent / seconds}


def cancel_latency(samples: int = 30) -> Figures:
    """Milliseconds from the call of cancel to the `CancelledError` in the handler."""
    waits = []
    with pool(), tempfile.TemporaryDirectory() as folder:
        for number in range(samples):
            path = Path(folder) / str(number)
            handle = canceled.enqueue(Canceled(path=str(path)))
            until(lambda agent_id=handle.agent_id: Activity.objects.running().filter(pk=agent_id).exists())
            called = time.time_ns()
            activity.cancel(handle.agent_id)
            until(path.exists)
            waits.append((int(path.read_text()) - called) / 1e6)
    return {"p50_ms": statistics.median(waits), "max_ms": max(waits)}


def memory() -> Figures:
    """Proportional set size of one more worker process in MB, agents SDK loaded."""
    sizes = {}
    for workers in (1, 3):
        with pool(workers=workers) as process:
            sizes[workers] = sum(_pss(pid) for pid in _descendants(process.pid))
    return {"extra_process_mb": (sizes[3] - sizes[1]) / 2 / 1e6}


def recovery() -> Figures:
    """SIGKILL of a process with 4 activities of 0.5 s in flight: lost ones, and seconds until all are done."""
    with pool(workers=2, concurrency=4):
        handles = pause.enqueue_many([Pause(seconds=0.5)] * 8)
        until(lambda: Activity.objects.running().count() == 8)
        victim = next(worker for worker in get_queue().workers())
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.monotonic()
        until(all_finished)
        elapsed = time.monotonic() - killed
    lost = len(handles) - Activity.objects.filter(status="complete").count()
    return {"lost": lost, "all_done_after_s": elapsed}


def list_million(rows: int = 1_000_000, samples: int = 9) -> Figures:
    """Milliseconds in PostgreSQL with 1,000,000 rows: the first page of the REST list and its count, by filter."""
    if connection.vendor != "postgresql":
        return {}
    _fill(rows)
    asked = {
        "all": Activity.objects.all().active_first(),
        "errors": Activity.objects.filter(status="error").order_by("-agent_id"),
        "task": Activity.objects.of_type("task-7").active_first(),
        "tenant": Activity.objects.all().for_metadata(organization_id="org-7").active_first(),
        "search_without_hit": searched(Activity.objects.all(), "nowhere").active_first(),
        "last_week": Activity.objects.filter(created_at__gte=timezone.now() - timedelta(days=7)).active_first(),
        "small_tenant": Activity.objects.all().for_metadata(organization_id="small").active_first(),
    }
    figures: Figures = {}
    for name, wanted in asked.items():
        page = wanted.light()[:50]
        counted = wanted.order_by().values("agent_id")[: conf.COUNT_LIMIT + 1]
        figures[f"{name}_page_ms"] = statistics.median(_time_in_database(page) for _ in range(samples))
        figures[f"{name}_count_ms"] = statistics.median(_time_in_database(counted) for _ in range(samples))
    return figures


def websocket_fanout(clients: int = 500, changes: int = 20) -> Figures:
    """Milliseconds from the call of update to its arrival at each of 500 websockets of one server process."""
    from benchmarks.sockets import fanout

    waits, messages = fanout(clients, changes)
    return {
        "p50_ms": statistics.median(waits),
        "p99_ms": statistics.quantiles(waits, n=100)[98],
        "max_ms": max(waits),
        "messages_per_client": messages / clients,
    }


SCENARIOS: dict[str, Callable[[], Figures]] = {
    scenario.__name__: scenario
    for scenario in (
        idle_latency,
        concurrency,
        concurrency_500,
        drain,
        keyed_drain,
        enqueue,
        claim_cost,
        queue_layer,
        idle_commands,
        cancel_latency,
        memory,
        recovery,
        list_million,
        websocket_fanout,
    )
}


# What differs from row to row: 1 % active, 5 % in error, 50 tasks, 100 tenants, and one with ten activities.
_VARYING = {
    "agent_id": "(lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid",
    "status": "CASE WHEN n * 7 %% 100 = 0 THEN 'queued' WHEN n * 7 %% 100 < 6 THEN 'error' ELSE 'complete' END",
    "agent_type": "'task-' || n %% 50",
    "metadata": "jsonb_build_object('organization_id',"
    " CASE WHEN n %% 100000 = 0 THEN 'small' ELSE 'org-' || n %% 100 END)",
}


def _fill(rows: int) -> None:
    """Insert activities, as copies of one with some columns of their own."""
    model = Activity(queue="default", context={"text": "x" * 200}, latest_log_message="Task completed successfully.")
    model.save()
    columns = [str(field.column) for field in Activity._meta.concrete_fields]
    values = [_VARYING.get(column, column) for column in columns]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO agentexec_activity ({', '.join(columns)}) SELECT {', '.join(values)}"
            " FROM agentexec_activity, generate_series(1, %s) n WHERE agent_id = %s",
            [rows, model.agent_id],
        )
        cursor.execute("VACUUM ANALYZE agentexec_activity")


def _time_in_database(queryset: QuerySet[Any, Any]) -> float:
    """Return the milliseconds that PostgreSQL itself counts for a query."""
    (plan,) = json.loads(queryset.explain(format="json", analyze=True))
    return float(plan["Execution Time"]) + float(plan["Planning Time"])


def _message(partition: str = "") -> Message:
    agent_id = uuid7()
    return Message(agent_id, partition or f"i:{agent_id}")


def _rate(function: Callable[[], object], times: int) -> float:
    function()  # warms up
    started = time.monotonic()
    for _ in range(times):
        function()
    return times / (time.monotonic() - started)


def _client_commands(client: Any) -> int:
    """Commands that clients sent: what scripts call inside is left out, as it crosses no network."""
    sent = {"evalsha", "eval", "blpop", "hset", "hmget", "hgetall", "hdel", "set", "get", "pexpire", "ping"}
    inside = {"hset", "hmget", "hdel"}  # scripts use these as well; from outside they come once per beat
    stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in sent - inside)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [found for child in children for found in _descendants(int(child))]


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
