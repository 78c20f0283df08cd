"""The measurements. Each returns its figures by name; rows are committed, as in production."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db.models import Max, Min

from benchmarks.agents import Canceled, Key, Nothing, Pause, canceled, clock, keyed, noop, pause
from benchmarks.commands import commands_per_second, foreign_keys
from benchmarks.listing import list_million
from benchmarks.peers.fleet import descendants, proportional_size
from benchmarks.pools import all_finished, is_quick, pool, scaled, until
from django_agentexec import activity
from django_agentexec.ids import uuid7
from django_agentexec.models import Activity
from django_agentexec.queues import Ack, Message, Outcome, get_queue

Figures = dict[str, float]
QUEUE = "default"
FOREIGN = 1_000_000  # foreign keys in the same Redis
LOOK = 0.02  # seconds until the first check for an end: an immediate query would compete with the measured work
IDLE = 3.0  # seconds after the start of a pool until it is idle


def idle_latency(samples: int = 300) -> Figures:
    """Milliseconds from the call of enqueue to the start of the handler, on an idle pool of 2 processes."""
    with pool():
        waits = []
        for _ in range(scaled(samples)):
            called = time.time_ns()
            handle = clock.enqueue(Nothing())
            time.sleep(LOOK)
            until(Activity.objects.finished().filter(pk=handle.agent_id).exists)
            started: Any = Activity.objects.get(pk=handle.agent_id).result
            waits.append((started - called) / 1e6)
    return {"p50_ms": statistics.median(waits), "p99_ms": statistics.quantiles(waits, n=100)[98]}


def concurrency(slots: int = 100, count: int = 1_000, seconds: float = 0.2) -> Figures:
    """Handlers that wait at the same time, on average: 1,000 of 0.2 s on 2 processes.

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
    count = scaled(count)
    noop.enqueue_many([Nothing()] * count)
    with pool(concurrency=100):
        left = Activity.objects.active().count()
        started = time.monotonic()
        until(all_finished)
        elapsed = time.monotonic() - started
    return {"per_second": left / elapsed}


def keyed_drain(keys: int = 1_000, each: int = 5) -> Figures:
    """Activities of 1,000 lock keys with 5 each, in order, per second; and the number of keys served out of order."""
    keys = scaled(keys)
    keyed.enqueue_many([Key(key=n % keys) for n in range(keys * each)])
    with pool(concurrency=100):
        left = Activity.objects.active().count()
        started = time.monotonic()
        until(all_finished)
        elapsed = time.monotonic() - started
    return {"per_second": left / elapsed, "keys_out_of_order": _keys_out_of_order()}


def enqueue(count: int = 1_000, bulk: int = 10_000) -> Figures:
    """Enqueues per second, single and 1,000 per call: with rows, and in the queue alone."""
    count, calls = scaled(count), scaled(bulk) // 1_000
    contexts = [Nothing()] * 1_000
    one_by_one = _rate(lambda: noop.enqueue(Nothing()), count)
    in_bulk = _rate(lambda: noop.enqueue_many(contexts), calls) * 1_000
    ids = _rate(lambda: get_queue().enqueue(QUEUE, [_message()]), count)
    ids_in_bulk = _rate(lambda: get_queue().enqueue(QUEUE, [_message() for _ in range(1_000)]), calls) * 1_000
    return {
        "one_by_one_per_second": one_by_one,
        "bulk_per_second": in_bulk,
        "one_by_one_without_row_per_second": ids,
        "bulk_without_row_per_second": ids_in_bulk,
    }


def claim_cost(samples: int = 300) -> Figures:
    """Milliseconds of a claim with all lock keys but one busy, by number of keys; finally beside foreign keys."""
    figures = {}
    for keys in (100, 1_000, 10_000, 100_000):
        get_queue().clear()
        get_queue().enqueue(QUEUE, [_message(f"k:{n}") for n in range(keys) for _ in range(2)])
        while get_queue().ack_and_claim(QUEUE, "busy", limit=1_000).claimed:
            pass
        figures[f"ms_at_{keys}_keys"] = _claim_ms(samples)
    with foreign_keys(os.environ["BENCHMARK_REDIS"], scaled(FOREIGN)):
        figures["ms_beside_foreign_keys"] = _claim_ms(samples)
    get_queue().clear()
    figures["ratio_100000_to_100"] = figures["ms_at_100000_keys"] / figures["ms_at_100_keys"]
    return figures


def _claim_ms(samples: int) -> float:
    times = []
    for _ in range(samples):
        get_queue().enqueue(QUEUE, [_message("k:free")])
        started = time.perf_counter()
        (claimed,) = get_queue().ack_and_claim(QUEUE, "w", limit=1).claimed
        times.append((time.perf_counter() - started) * 1e3)
        get_queue().ack_and_claim(QUEUE, "w", [Ack(claimed, Outcome.DONE)])
    return statistics.median(times)


def queue_layer(count: int = 30_000, batch: int = 100) -> Figures:
    """Claims and acknowledgments per second without rows, one process, 100 at a time."""
    count = scaled(count)
    get_queue().enqueue(QUEUE, [_message() for _ in range(count)])
    acks: list[Ack] = []
    done = 0
    started = time.monotonic()
    while done < count:
        claims = get_queue().ack_and_claim(QUEUE, "w", acks, limit=batch)
        acks = [Ack(claimed, Outcome.DONE) for claimed in claims.claimed]
        done += len(acks)
    get_queue().ack_and_claim(QUEUE, "w", acks)
    return {"per_second": count / (time.monotonic() - started)}


def idle_commands(seconds: float = 15.0) -> Figures:
    """Redis commands per second that clients send, 2 idle processes and their pool."""
    with pool():
        time.sleep(IDLE)
        return {"per_second": commands_per_second(os.environ["BENCHMARK_REDIS"], seconds / (3 if is_quick() else 1))}


def cancel_latency(samples: int = 30) -> Figures:
    """Milliseconds from the call of cancel to the `CancelledError` in the handler."""
    waits = []
    with pool(), tempfile.TemporaryDirectory() as folder:
        for number in range(scaled(samples)):
            path = Path(folder) / str(number)
            handle = canceled.enqueue(Canceled(path=str(path)))
            until(Activity.objects.running().filter(pk=handle.agent_id).exists)
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
            noop.enqueue_many([Nothing()] * 20 * workers)  # a process that has run activities is larger
            until(all_finished)
            sizes[workers] = sum(proportional_size(pid) for pid in descendants(process.pid))
    return {"extra_process_mb": (sizes[3] - sizes[1]) / 2 / 1e6}


def recovery() -> Figures:
    """SIGKILL of a process with 4 running activities of 0.5 s: lost activities, and seconds until all are done."""
    with pool(workers=2, concurrency=4):
        handles = pause.enqueue_many([Pause(seconds=0.5)] * 8)
        until(lambda: Activity.objects.running().count() == 8)
        victim = next(worker for worker in get_queue().workers())
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.monotonic()
        until(all_finished)
        elapsed = time.monotonic() - killed
    lost = len(handles) - Activity.objects.filter(status="complete").count()
    return {"not_done": lost, "all_done_after_s": elapsed}


def websocket_fanout(clients: int = 500, changes: int = 20) -> Figures:
    """Milliseconds from a call of update to its arrival at each of 500 websockets of one server process."""
    from benchmarks.sockets import fanout

    clients, changes = scaled(clients), scaled(changes)
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


def _keys_out_of_order() -> int:
    last: dict[str, UUID] = {}
    broken = set()
    for key, agent_id in Activity.objects.order_by("started_at").values_list("lock_key", "agent_id"):
        if key in last and agent_id < last[key]:
            broken.add(key)
        last[key] = agent_id
    return len(broken)


def _message(partition: str = "") -> Message:
    agent_id = uuid7()
    return Message(agent_id, partition or f"i:{agent_id}")


def _rate(function: Callable[[], object], times: int) -> float:
    function()  # warms up
    started = time.monotonic()
    for _ in range(times):
        function()
    return times / (time.monotonic() - started)
