"""The Redis backend's list of workers: entries of other releases, machines with wrong clocks, and old entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from django_agentexec import monitoring
from django_agentexec.queues import WorkerInfo, get_queue
from django_agentexec.queues.board import WORKER_TTL
from django_agentexec.queues.redis import RedisQueue
from tests.support.queue_backends import sweep_workers

KEY = "agentexec:workers"


@pytest.fixture
def queue() -> Iterator[RedisQueue]:
    queue = get_queue()
    assert isinstance(queue, RedisQueue)
    yield queue
    queue.clear()


def announce(queue: RedisQueue, name: str) -> dict[str, Any]:
    """Announce a worker, and return its entry."""
    queue.register_worker(WorkerInfo(name, "host", 1, ["default"], 10, False, started=1_700_000_000.0))
    entry: dict[str, Any] = json.loads(queue.client.hget(KEY, name))  # type: ignore[arg-type]
    return entry


def put(queue: RedisQueue, name: str, entry: object) -> None:
    queue.client.hset(KEY, name, entry if isinstance(entry, bytes) else json.dumps(entry))


def age(queue: RedisQueue, name: str, seconds: float) -> None:
    entry = json.loads(queue.client.hget(KEY, name))  # type: ignore[arg-type]
    put(queue, name, {**entry, "last_beat": entry["last_beat"] - seconds})


def sweep(queue: RedisQueue) -> None:
    sweep_workers(queue)
    announce(queue, "sweeper")


def test_an_entry_is_as_earlier_releases_read_it(queue: RedisQueue) -> None:
    assert set(announce(queue, "w1")) == {
        *("id", "host", "pid", "queues", "concurrency", "quarantine", "started", "last_beat"),
        *("running", "done", "failed"),
    }


def test_unknown_fields_are_skipped(queue: RedisQueue) -> None:
    put(queue, "newer", {**announce(queue, "w1"), "id": "newer", "zone": {"name": "eu-1"}})

    reading = queue.workers()

    assert sorted(worker.id for worker in reading) == ["newer", "w1"]
    assert reading.unreadable == []
    assert len(monitoring.workers()) == 2


@pytest.mark.parametrize(
    "change",
    [
        b"{", b"\xff", b"[]", b"null", b'"w2"', {"pid": "many"}, {"queues": None}, {"queues": [1]}, {"id": "\ud800"},
        {"started": None}, {"started": 1e300}, {"started": -1e12}, {"last_beat": float("nan")},
        {"last_beat": float("inf")},
    ],
)  # fmt: skip
def test_an_unreadable_entry_is_skipped_and_named(queue: RedisQueue, change: Any) -> None:
    good = announce(queue, "w1")
    put(queue, "w2", change if isinstance(change, bytes) else {**good, "id": "w2", **change})

    reading = queue.workers()

    assert [worker.id for worker in reading] == ["w1"]
    assert reading.unreadable == ["w2"]
    assert [worker.id for worker in monitoring.workers()] == ["w1"]


def test_reading_deletes_nothing_and_a_heartbeat_deletes_the_silent(queue: RedisQueue) -> None:
    for name in ("silent", "recent"):
        announce(queue, name)
    age(queue, "silent", WORKER_TTL + 10)
    age(queue, "recent", WORKER_TTL - 60)

    assert [worker.id for worker in queue.workers()] == ["recent"]
    assert queue.client.hlen(KEY) == 2
    announce(queue, "recent")
    assert queue.client.hlen(KEY) == 2
    sweep(queue)

    assert sorted(worker.id for worker in queue.workers()) == ["recent", "sweeper"]
    assert queue.client.hlen(KEY) == 2


def test_of_all_processes_one_looks_for_the_silent_each_minute(queue: RedisQueue) -> None:
    assert queue.try_acquire_leadership("forget-workers", "somebody", 60)
    announce(queue, "silent")
    age(queue, "silent", WORKER_TTL + 10)

    sweep(queue)

    assert queue.client.hlen(KEY) == 2


def test_a_heartbeat_is_one_round_trip(queue: RedisQueue) -> None:
    announce(queue, "w1")
    client: Any = queue.client

    def commands() -> int:
        calls = client.info("commandstats")
        return sum(calls.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "time", "get"))

    before = commands()
    queue.register_worker(WorkerInfo("w1", "host", 1, ["default"], 10, False, started=1.0))

    assert commands() - before <= 2  # EVALSHA, and the TIME in it
