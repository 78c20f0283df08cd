"""Queue backends with a clock that tests can move, and shorthands for the Redis backend.

The in-memory queue takes a clock. On Redis, tests move the deadlines, or the scripts read a clock that stands still.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from redis import Redis

from django_agentexec.ids import uuid7
from django_agentexec.queues import Claim, Limit, Message, Queue
from django_agentexec.queues.memory import MemoryQueue
from django_agentexec.queues.redis import RedisQueue
from django_agentexec.queues.redis import queue as redis_queue
from django_agentexec.queues.redis.live import RedisLiveStore
from django_agentexec.queues.redis.queue import KEYS
from tests.support.script_clock import scripts_with_test_clock, set_clock

START = 1_700_000_000.0  # seconds since the epoch


class Backend(Protocol):
    """A queue and its clock."""

    queue: Queue

    def forward(self, seconds: float) -> None:
        """Let time pass."""


class MemoryBackend:
    def __init__(self) -> None:
        self.now = START
        self.queue: Queue = MemoryQueue(clock=lambda: self.now)

    def forward(self, seconds: float) -> None:
        self.now += seconds


def key_of(redis: RedisQueue, name: str, queue: str = "default") -> str:
    """Return the key of a part of a queue."""
    return redis._keys(queue)[KEYS.index(name)]


def stream_key_of(redis: RedisQueue, agent_id: UUID) -> str:
    """Return the key of the streamed text of an activity."""
    store = redis.live
    assert isinstance(store, RedisLiveStore)
    return store._stream(agent_id)


def use_client(redis: RedisQueue, client: Redis) -> None:
    """Let a queue speak to the server of this client, also if it has spoken to another before."""
    redis._client = client


class RedisBackend:
    def __init__(self) -> None:
        self.redis = RedisQueue()
        self.queue: Queue = self.redis

    def forward(self, seconds: float) -> None:
        """Move every deadline back; the server's own clock cannot be moved."""
        client: Any = self.redis.client
        for name in ("leases", "delayed"):
            key = self.key(name)
            if members := client.zrange(key, 0, -1):
                pipe = client.pipeline()
                for member in members:
                    pipe.zincrby(key, -int(seconds * 1000), member)
                pipe.execute()
        for name in ("pause_until", "refill_until"):
            if until := client.hget(self.key("counters"), name):
                client.hset(self.key("counters"), name, str(int(until) - int(seconds * 1000)))

    def key(self, name: str, queue: str = "default") -> str:
        return key_of(self.redis, name, queue)


class StoppedRedisBackend(RedisBackend):
    """Redis with a clock that stands still between two calls of `forward`. Used inside `stopped_clock()`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.forward(0)

    def forward(self, seconds: float) -> None:
        self.now += seconds
        set_clock(self.redis.client, self.now)


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Have the queue's scripts read the clock of a `StoppedRedisBackend` instead of the server's."""
    with scripts_with_test_clock(redis_queue):
        yield


def message(partition: str = "") -> Message:
    """Return the message of a new activity, by default in a separate partition."""
    agent_id = uuid7()
    return Message(agent_id, partition or f"i:{agent_id}")


def limited(*limits: Limit, partition: str = "") -> Message:
    """Return the message of a new activity with these limits."""
    return replace(message(partition), limits=limits)


def claim(backend: Backend, limit: int = 100, worker: str = "w1", *, quarantine: bool = False) -> list[Claim]:
    """Claim from the default queue."""
    return backend.queue.ack_and_claim("default", worker, limit=limit, quarantine=quarantine).claimed


def ids(claims: list[Claim]) -> list[UUID]:
    """Return the ids of the claimed activities."""
    return [claimed.agent_id for claimed in claims]


def sweep_workers(queue: RedisQueue) -> None:
    """Let the next registration of a worker remove the entries of those that are gone."""
    queue._workers._next_sweep = 0.0


def command_calls(client: Redis, name: str) -> int:
    """Return how often a command has run on the server."""
    stats: Any = client.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])


def refill(queue: Queue) -> None:
    """End the wait for a refill."""
    queue.end_recovery("default", queue.begin_recovery("default"))
