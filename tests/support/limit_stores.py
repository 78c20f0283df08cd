"""Stores of limits with a clock that tests can move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from django_agentexec.limits import LimitStore, MemoryLimits, RedisLimits
from django_agentexec.limits import redis as redis_limits
from django_agentexec.queues.redis.queue import RedisQueue
from tests.support.queue_backends import START
from tests.support.script_clock import scripts_with_test_clock, set_clock


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
        set_clock(self.queue.client, self.now)


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Have the scripts read the clock of a `RedisStore` instead of the server's."""
    with scripts_with_test_clock(redis_limits):
        yield
