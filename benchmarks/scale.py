"""The queue's server beyond a hundred processes: `python -m benchmarks.scale`.

Measures cases that are too large for the other benchmarks, on a separate Valkey server: releases and reads of leases at
50,000 leases; 200 workers with 50 claims each when the server stops for 6 s; 1,000 idle workers while a recovery is
pending. Prints each figure beside its target, and exits with 1 if a target is missed. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.support.servers import Valkey, valkey_server

QUEUE = "default"
LEASES = 50_000
HOLDERS = 1_000  # workers that hold these leases
WORKERS, CLAIMS, PROCESSES = 200, 50, 4
STOPPED = 6.0  # seconds for which the server does not reply
SETTLED = 10.0  # seconds within which all workers must send a heartbeat again
IDLE_WORKERS = 1_000
RECOVERY = 15.0  # seconds of the simulated recovery

TARGETS = {
    "release_without_leases_ms": 5.0,
    "release_of_50_leases_ms": 5.0,
    "leased_page_ms": 5.0,
    "outage_last_heartbeat_s": SETTLED,
    "outage_lost_leases": 0.0,
    "outage_crashes": 0.0,
    "outage_lapses": 0.0,
    "recovery_cores": 0.5,
}
"""The highest value that each figure may have."""

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="PART", choices=PARTS, default=list(PARTS))
    only = parser.parse_args().only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # also ends the server and the workers
    missed = []
    for name in only:
        with tempfile.TemporaryDirectory() as folder, valkey_server() as server:
            set_up(server, Path(folder))
            for figure, value in PARTS[name](server).items():
                target = TARGETS.get(figure)
                is_missed = target is not None and value > target
                missed += [figure] * is_missed
                goal = "" if target is None else f"  (at most {target:g}{', MISSED' if is_missed else ''})"
                print(f"  {figure:<28} {value:>10,.2f}{goal}", flush=True)
    sys.exit(1 if missed else 0)


def set_up(server: Valkey, folder: Path) -> None:
    import django

    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "unused.sqlite3")}
    os.environ["BENCHMARK_REDIS"], os.environ["BENCHMARK_DATABASE"] = server.url, json.dumps(database)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    django.setup()
    from django.test.utils import override_settings

    override_settings(AGENTEXEC={"REDIS_URL": server.url}).enable()


def _enqueue(count: int) -> None:
    from django_agentexec.ids import uuid7
    from django_agentexec.queues import Message, get_queue

    ids = [uuid7() for _ in range(count)]
    get_queue().enqueue(QUEUE, [Message(agent_id, f"i:{agent_id}") for agent_id in ids])


def _server_ms(client: Any, call: Callable[[], object]) -> float:
    """Return the server time of the longest script of `call`, in milliseconds."""
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    call()
    client.config_set("slowlog-log-slower-than", -1)
    longest: int = max(entry["duration"] for entry in client.slowlog_get(100) if b"EVALSHA" in entry["command"])
    return longest / 1e3


def leases(server: Valkey) -> Figures:
    """Release workers and read all leases, with 50,000 leases."""
    from django_agentexec.queues import get_queue
    from django_agentexec.queues.redis import RedisQueue

    queue = get_queue()
    assert isinstance(queue, RedisQueue)
    _enqueue(LEASES)
    for number in range(HOLDERS):
        queue.ack_and_claim(QUEUE, f"w{number}", limit=LEASES // HOLDERS)
    queue.heartbeat(QUEUE, "w0", [])
    assert queue.stats(QUEUE).leased == LEASES
    queue.release_worker(QUEUE, "nobody", crashed=False)  # loads the scripts into the server
    queue.list_leases(QUEUE)
    figures = {
        "release_without_leases_ms": _server_ms(
            queue.client, lambda: queue.release_worker(QUEUE, "nobody", crashed=True)
        ),
        "leased_page_ms": _server_ms(queue.client, lambda: queue.list_leases(QUEUE)),
        "release_of_50_leases_ms": max(
            _server_ms(queue.client, partial(queue.release_worker, QUEUE, f"w{number}", crashed=True))
            for number in range(10)
        ),
    }
    assert queue.stats(QUEUE).leased == LEASES - 10 * LEASES // HOLDERS
    return figures


def outage(server: Valkey) -> Figures:
    """Stop the server for 6 s under 200 workers with 50 claims each, which constantly end and claim activities."""
    from benchmarks.scale_workers import run_workers
    from django_agentexec.queues import get_queue

    context = get_context("spawn")
    _enqueue(WORKERS * CLAIMS)
    each, processes, pipes = WORKERS // PROCESSES, [], []
    for number in range(PROCESSES):
        ours, theirs = context.Pipe()
        process = context.Process(target=run_workers, args=(number, each, CLAIMS, theirs), daemon=True)
        process.start()
        processes.append(process)
        pipes.append(ours)
    try:
        _until(lambda: get_queue().stats(QUEUE).leased >= WORKERS * CLAIMS - WORKERS)
        time.sleep(STOPPED)  # all workers have sent heartbeats, at different times
        server.signal(signal.SIGSTOP)
        time.sleep(STOPPED)
        server.signal(signal.SIGCONT)
        continued = time.monotonic()
        time.sleep(2 * SETTLED)
        answers: list[dict[str, Any]] = []
        for pipe in pipes:
            pipe.send(continued)
            answers.append(pipe.recv())
    finally:
        for process in processes:
            process.kill()
    firsts = [first for answer in answers for first in answer["first_beats"]]
    return {
        "outage_last_heartbeat_s": max(firsts) - continued if len(firsts) == WORKERS else float("inf"),
        "outage_releases": sum(answer["releases"] for answer in answers),
        "outage_lost_leases": sum(answer["lost"] for answer in answers),
        "outage_crashes": sum(answer["crashes"] for answer in answers),
        "outage_lapses": sum(answer["expired_leases"] for answer in answers),
    }


def recovery(server: Valkey) -> Figures:
    """Let 1,000 idle workers poll a queue that waits for its recovery, at the pace of the claimer."""
    from django_agentexec.queues import DatabaseState, get_queue
    from django_agentexec.queues.redis import RedisQueue
    from django_agentexec.worker.claimer import recovery_pause

    queue = get_queue()
    assert isinstance(queue, RedisQueue)
    assert queue.ack_and_claim(QUEUE, "first", rows=DatabaseState.WAITING).needs_recovery
    looks = [(random.random() * 0.1, number, 0) for number in range(IDLE_WORKERS)]  # one notification wakes all
    heapq.heapify(looks)
    before, started, count = _cpu(queue.client), time.monotonic(), 0
    while time.monotonic() - started < RECOVERY:
        at, number, refusals = heapq.heappop(looks)
        time.sleep(max(0.0, started + at - time.monotonic()))
        assert queue.ack_and_claim(QUEUE, f"w{number}", limit=50).needs_recovery
        count += 1
        now = time.monotonic() - started
        heapq.heappush(looks, (now + recovery_pause(refusals + 1), number, refusals + 1))
    elapsed = time.monotonic() - started
    return {"recovery_cores": (_cpu(queue.client) - before) / elapsed, "recovery_looks_per_second": count / elapsed}


def _cpu(client: Any) -> float:
    used: dict[str, float] = client.info("cpu")
    return used["used_cpu_user"] + used["used_cpu_sys"]


def _until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("The workers did not claim all activities.")
        time.sleep(0.1)


PARTS: dict[str, Callable[[Valkey], Figures]] = {"leases": leases, "outage": outage, "recovery": recovery}


if __name__ == "__main__":
    main()
