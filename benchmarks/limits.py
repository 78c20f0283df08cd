"""The cost of a claim with limits: `python -m benchmarks.limits`.

Measures claims of one activity at 100 and at 100,000 concurrency keys, all of which have waiting activities and are at
their limit except the key of the claimed activity, on a separate Valkey server. Prints median and 99th percentile, and
exits with 1 if the 99th percentile at 100,000 keys exceeds 1.2 times that at 100 keys. Also measures claims of
activities without limits while 10,000 of them wait. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scale import set_up
from tests.support.servers import valkey_server

if TYPE_CHECKING:
    from django_agentexec.queues import Message

FEW, MANY = 100, 100_000
WAITING = 10_000  # activities without limits
WITHOUT_LIMITS = "without_limits"
SAMPLES = 3_000
ROUNDS = 5  # the two sizes alternate, so that both see the same load of the machine
MAX_RATIO = 1.2

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    samples = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as folder, valkey_server() as server:
        set_up(server, Path(folder))
        figures = measure(samples)
    for name, value in figures.items():
        print(f"  {name:<32} {value:>10.3f}", flush=True)
    sys.exit(1 if figures["p99_ratio"] > MAX_RATIO else 0)


def measure(samples: int) -> Figures:
    """Return the figures, in milliseconds."""
    from django_agentexec.queues import get_queue

    queues = {FEW: f"at_{FEW}_keys", MANY: f"at_{MANY}_keys"}
    for keys, queue in queues.items():
        _fill(queue, keys)
    _fill_without_limits(WITHOUT_LIMITS)
    times: dict[str, list[float]] = {queue: [] for queue in (*queues.values(), WITHOUT_LIMITS)}
    for _ in range(ROUNDS):
        for queue, found in times.items():
            found += _claim_times(queue, samples // ROUNDS)
    get_queue().clear()
    figures: Figures = {}
    for queue, found in times.items():
        figures[f"p50_ms_{queue}"] = statistics.median(found)
        figures[f"p99_ms_{queue}"] = statistics.quantiles(found, n=100)[98]
    figures["p99_ratio"] = figures[f"p99_ms_{queues[MANY]}"] / figures[f"p99_ms_{queues[FEW]}"]
    return figures


def _fill(queue: str, keys: int) -> None:
    """Let each key have one running and one parked activity."""
    from django_agentexec.queues import get_queue

    backend = get_queue()
    for start in range(0, keys, 1_000):
        messages = [_message(f"key {n}") for n in range(start, min(start + 1_000, keys)) for _ in range(2)]
        backend.enqueue(queue, messages)
    while (claims := backend.ack_and_claim(queue, "busy", limit=1_000)).claimed or claims.waiting:
        pass
    assert backend.stats(queue).leased == keys
    assert backend.stats(queue).ready == 0


def _fill_without_limits(queue: str) -> None:
    from django_agentexec.queues import get_queue

    for _ in range(0, WAITING, 1_000):
        get_queue().enqueue(queue, [_message() for _ in range(1_000)])


def _claim_times(queue: str, samples: int) -> list[float]:
    """Return the milliseconds of single claims: of activities that wait, or of keys whose limit of one they reach."""
    from django_agentexec.queues import Ack, Outcome, get_queue

    backend, times = get_queue(), []
    for number in range(samples):
        backend.enqueue(queue, [_message("" if queue == WITHOUT_LIMITS else f"free {number % 10}")])
        started = time.perf_counter()
        (claimed,) = backend.ack_and_claim(queue, "w", limit=1).claimed
        times.append((time.perf_counter() - started) * 1e3)
        backend.ack_and_claim(queue, "w", [Ack(claimed, Outcome.DONE)])
    return times


def _message(key: str = "") -> Message:
    """Return an activity of a concurrency key, or one without limits."""
    from django_agentexec.ids import uuid7
    from django_agentexec.queues import Limit, Message
    from django_agentexec.queues.limits import shared_partition

    agent_id = uuid7()
    if not key:
        return Message(agent_id, f"i:{agent_id}")
    return Message(agent_id, shared_partition(key), limits=(Limit("task:research", 1_000_000), Limit(key, 1)))


if __name__ == "__main__":
    main()
