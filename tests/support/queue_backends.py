"""Backends with a clock that tests can move: the in-memory one by injection, Redis by moving its deadlines.

And what the tests of the Redis backend say to it.
"""

from __future__ import annotations

from typing import Any, Protocol

from django_agentexec.ids import uuid7
from django_agentexec.queues import Message, Queue
from django_agentexec.queues.memory import MemoryQueue
from django_agentexec.queues.redis.queue import KEYS, RedisQueue


class Backend(Protocol):
    """A queue and its clock."""

    queue: Queue

    def forward(self, seconds: float) -> None:
        """Let time pass."""


class MemoryBackend:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.queue: Queue = MemoryQueue(clock=lambda: self.now)

    def forward(self, seconds: float) -> None:
        self.now += seconds


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
        return self.redis._keys(queue)[KEYS.index(name)]


def message(partition: str = "") -> Message:
    """Return the message of a new activity, by default in a partition of its own."""
    agent_id = uuid7()
    return Message(agent_id, partition or f"i:{agent_id}")


def refill(queue: Queue) -> None:
    """End the wait for a refill."""
    queue.end_recovery("default", queue.begin_recovery("default"))
