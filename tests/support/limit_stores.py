"""Stores of limits with a clock that tests can move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol
from unittest import mock

from django_agentexec.limits import LimitStore, MemoryLimits, RedisLimits
from django_agentexec.limits import redis as redis_limits
from django_agentexec.queues.redis.queue import RedisQueue
from tests.support.queue_backends import SERVER_CLOCK, START, TEST_CLOCK


class Clocked(Protocol):
    """A store and its clock."""

    store: LimitStore

    def forward(self, seconds: float) -> None:
        """Let time pass."""


class MemoryStore:
    def __init__(self) -> None:
        self.now = START
        self.store: LimitStore = MemoryLimits(clock=lambda: self.now)

    def forward(self, seconds: float) -> None:
        self.now += seconds


class RedisStore:
    """Used inside `stopped_clock()`."""

    def __init__(self) -> None:
        self.now = START
        self.queue = RedisQueue()
        self.store: LimitStore = RedisLimits(lambda: self.queue.client, "agentexec")
        self.forward(0)

    def forward(self, seconds: float) -> None:
        self.now += seconds
        whole, fraction = divmod(round(self.now * 1_000_000), 1_000_000)
        client: Any = self.queue.client
        client.hset(TEST_CLOCK, mapping={"seconds": whole, "microseconds": fraction})


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Have the scripts read the clock of a `RedisStore` instead of the server's."""
    with mock.patch.object(redis_limits, "script", _script_with_test_clock):
        yield


_script = redis_limits.script


@cache
def _script_with_test_clock(verb: str) -> tuple[str, str]:
    _, text = _script(verb)
    assert text.count(SERVER_CLOCK) == 1
    text = text.replace(SERVER_CLOCK, f"redis.call('HMGET', '{TEST_CLOCK}', 'seconds', 'microseconds')")
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text
