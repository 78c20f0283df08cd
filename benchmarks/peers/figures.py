"""The measurements of a peer, with the same figures and the same sizes as those of this project in `scenarios.py`."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from benchmarks.commands import commands_per_second
from benchmarks.peers.base import BasePeer, Purpose, redis_url
from benchmarks.peers.fleet import fleet, parent, proportional_size, until, until_ready
from benchmarks.peers.tally import Kind, Tally

Figures = dict[str, float | None]
HELD = 4.0  # seconds; a read of redis-py 8 times out after 5


@dataclass(frozen=True)
class Bench:
    """The arguments of a measurement."""

    peer: BasePeer
    tally: Tally
    is_quick: bool


def idle_latency(bench: Bench) -> Figures:
    """Milliseconds from the call of enqueue to the start of the handler, on an idle fleet of 2 processes."""
    waits = []
    with fleet(bench.peer, "calls"):
        until_ready(bench.peer, bench.tally, 2)
        for number in range(50 if bench.is_quick else 300):
            called = time.time_ns()
            bench.peer.enqueue("nothing", [(number,)])
            _must(until(lambda: len(bench.tally) > 0))
            waits.append((bench.tally.records()[0].at - called) / 1e6)
            bench.tally.clear()
    return {"p50_ms": statistics.median(waits), "p99_ms": statistics.quantiles(waits, n=100)[98]}


def concurrency(bench: Bench, slots: int = 100, count: int = 1_000, seconds: float = 0.2) -> Figures:
    """Handlers that wait at the same time, on average: 1,000 of 0.2 s, from the first start to the last end."""
    if bench.peer.slots_are_processes:
        return {}
    with fleet(bench.peer, "waits", slots=slots) as running:
        until_ready(bench.peer, bench.tally, 2)
        # Workers are stopped meanwhile, so that the figure does not measure single enqueues.
        with running.stopped():
            stopped = time.monotonic()
            bench.peer.enqueue_many("wait", [(number, seconds) for number in range(count)])
        if (held := time.monotonic() - stopped) > HELD:
            raise RuntimeError(f"The workers were held for {held:.1f} s, in which their connections time out.")
        _must(until(lambda: len(bench.tally) >= 2 * count))
    times = [record.at for record in bench.tally.records()]
    return {"effective": count * seconds * 1e9 / (max(times) - min(times))}


def concurrency_500(bench: Bench) -> Figures:
    """The same with 2 x 500 slots."""
    return concurrency(bench, slots=500)


def drain(bench: Bench) -> Figures:
    """Handlers that do nothing, per second, by 2 processes: from the time when both work, for at most 15 s."""
    count = 8_000 if bench.is_quick else 20_000
    bench.peer.enqueue_many("nothing", [(number,) for number in range(count)])
    return {"per_second": _drained_per_second(bench, count)}


def keyed_drain(bench: Bench) -> Figures:
    """The same with 1,000 keys and 5 tasks each; and the number of keys served out of order."""
    if not bench.peer.has_keys:
        return {}
    keys = 200 if bench.is_quick else 1_000
    bench.peer.enqueue_keyed([(number, number % keys) for number in range(keys * 5)])
    rate = _drained_per_second(bench, keys * 5)
    last: dict[int, int] = {}
    broken = set()
    for record in bench.tally.records():
        key = record.number % keys
        if record.number < last.get(key, -1):
            broken.add(key)
        last[key] = record.number
    return {"per_second": rate, "keys_out_of_order": len(broken)}


def _drained_per_second(bench: Bench, count: int) -> float:
    with fleet(bench.peer, "calls"):
        _must(until(lambda: len(bench.tally) > 0))
        until(lambda: len(bench.tally) >= count, timeout=15)
    records = bench.tally.records()
    firsts: dict[int, int] = {}
    for record in records:
        firsts.setdefault(record.pid, record.at)
    if len(firsts) < 2:
        raise RuntimeError("One process did all; the other did not start in time.")
    began = max(firsts.values())
    ends = [record.at for record in records if record.at > began]
    return len(ends) / (max(ends) - began) * 1e9


def enqueue(bench: Bench) -> Figures:
    """Enqueues per second: single, and 1,000 per call if there is such a call."""
    count, bulk = (1_000, 2) if bench.is_quick else (3_000, 10)
    figures: Figures = {"one_by_one_per_second": _rate(bench.peer.enqueue, count)}
    if bench.peer.has_bulk:
        started = time.monotonic()
        for _ in range(bulk):
            bench.peer.enqueue_many("nothing", [(number,) for number in range(1_000)])
        figures["bulk_per_second"] = bulk * 1_000 / (time.monotonic() - started)
    return figures


def idle_commands(bench: Bench) -> Figures:
    """Redis commands per second that an idle fleet of 2 processes sends."""
    with fleet(bench.peer, "calls"):
        until_ready(bench.peer, bench.tally, 2)
        time.sleep(3)  # until the workers are idle
        return {"per_second": commands_per_second(redis_url(), 5 if bench.is_quick else 15)}


def memory(bench: Bench) -> Figures:
    """Proportional set size of one more worker process in MB, agents SDK loaded."""
    os.environ["BENCHMARK_SDK"] = "1"
    sizes = {}
    for processes in (1, 3):
        bench.tally.clear()
        with fleet(bench.peer, "calls", processes=processes) as running:
            until_ready(bench.peer, bench.tally, processes)
            sizes[processes] = sum(proportional_size(pid) for pid in running.processes())
    return {"extra_process_mb": (sizes[3] - sizes[1]) / 2 / 1e6}


def recovery(bench: Bench) -> Figures:
    """SIGKILL of processes with 4 of 8 tasks of 0.5 s: tasks that never ended, and seconds until all had ended."""
    count, limit = 8, 20.0 if bench.is_quick else 60.0
    with fleet(bench.peer, "kills", slots=4) as running:
        until_ready(bench.peer, bench.tally, 2)
        bench.peer.enqueue_many("wait", [(number, 0.5) for number in range(count)])
        _must(until(lambda: len(bench.tally.numbers(Kind.START)) == count))
        for pid in _victims(bench.tally, 4):
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()

        def are_done() -> bool:
            running.restart()
            return len(bench.tally.numbers(Kind.END)) == count

        all_done = until(are_done, timeout=limit)
        elapsed = time.monotonic() - killed
    missing = count - len(bench.tally.numbers(Kind.END))
    return {"not_done": missing, "limit_s": limit, "all_done_after_s": elapsed if all_done else None}


def _victims(tally: Tally, tasks: int) -> list[int]:
    """Choose processes that together run this number of tasks, preferably processes of the same worker."""
    load: dict[int, int] = {}
    for record in tally.records():
        load[record.pid] = load.get(record.pid, 0) + (1 if record.kind is Kind.START else -1)
    chosen: list[int] = []
    for pid in sorted(load, key=lambda pid: (parent(pid), pid)):
        if sum(load[victim] for victim in chosen) < tasks:
            chosen.append(pid)
    return chosen


def _rate(send: Callable[[str, list[tuple[int]]], None], count: int) -> float:
    send("nothing", [(number,) for number in range(100)])  # warms up
    started = time.monotonic()
    send("nothing", [(number,) for number in range(count)])
    return count / (time.monotonic() - started)


def _must(is_true: bool) -> None:
    if not is_true:
        raise TimeoutError("The measured fleet does not get on.")


FIGURES: dict[str, tuple[Callable[[Bench], Figures], Purpose]] = {
    "idle_latency": (idle_latency, "calls"),
    "concurrency": (concurrency, "waits"),
    "concurrency_500": (concurrency_500, "waits"),
    "drain": (drain, "calls"),
    "keyed_drain": (keyed_drain, "calls"),
    "enqueue": (enqueue, "calls"),
    "idle_commands": (idle_commands, "calls"),
    "memory": (memory, "calls"),
    "recovery": (recovery, "kills"),
}


def forget_everything() -> None:
    """Delete all keys of the peers' database."""
    with Redis.from_url(redis_url()) as client:
        client.flushdb()
