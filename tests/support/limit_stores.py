"""Stores of limits with a clock that tests can move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from django_agentexec.activity.resumption import resume
from django_agentexec.limits import LimitStore, MemoryLimits, RedisLimits
from django_agentexec.limits import redis as redis_limits
from django_agentexec.models import Activity, Status
from django_agentexec.queues.redis import RedisQueue
from django_agentexec.testing import drain
from tests.support.queue_backends import START
from tests.support.script_clock import scripts_with_test_clock
from tests.support.script_clock import set_clock as set_script_clock


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
        set_script_clock(self.queue.client, self.now)


class Clock:
    """The clock of a store in memory, which moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float = 60.0) -> None:
        """Let time pass."""
        self.now += seconds


def set_clock(store: LimitStore, clock: Callable[[], float]) -> None:
    """Let the store of a process, which reads the time itself, read this clock."""
    assert isinstance(store, MemoryLimits)
    store._clock = clock


def resumed(row: Activity) -> Activity:
    """Resume an activity that waits for a limit, run it, and return its row."""
    assert (row.status, row.waiting_for) == (Status.RUNNING, "limit"), (row.status, row.waiting_for, row.error)
    assert resume([row.agent_id]) == 1
    drain()
    return Activity.objects.get(pk=row.agent_id)


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Have the scripts read the clock of a `RedisStore` instead of the server's."""
    with scripts_with_test_clock(redis_limits):
        yield
