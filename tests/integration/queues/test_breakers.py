"""Circuit breakers: every backend passes every test, and processes share those of Redis."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Protocol

import pytest

from django_agentexec.queues.breakers import BreakerOptions, BreakerReading, BreakerState, BreakerStore, LocalBreakers
from django_agentexec.queues.memory import MemoryQueue
from django_agentexec.queues.redis import RedisQueue
from tests.support.servers import Valkey

OPTIONS = BreakerOptions(failures=3, window=60.0, open=30.0, rate=0.5)
LEASE = 20.0
MODEL = "openai/gpt-5"


class Backend(Protocol):
    store: BreakerStore

    def forward(self, seconds: float) -> None:
        """Let time pass."""


class LocalBackend:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.store: BreakerStore = LocalBreakers(lambda: self.now)

    def forward(self, seconds: float) -> None:
        self.now += seconds


class RedisBackend:
    def __init__(self) -> None:
        self.queue = RedisQueue()
        self.store: BreakerStore = self.queue.breakers

    def forward(self, seconds: float) -> None:
        """Move every time back; the server's own clock cannot be moved."""
        client: Any = self.queue.client
        for name, text in client.hgetall("agentexec:breakers").items():
            entry = json.loads(text)
            for field in ("at", "until", "opened_at"):
                if field in entry:
                    entry[field] -= int(seconds * 1000)
            slots = entry["slots"] or []
            entry["slots"] = [[number - int(seconds * 6 / OPTIONS.window), *counts] for number, *counts in slots]
            client.hset("agentexec:breakers", name, json.dumps(entry))


@pytest.fixture(params=[LocalBackend, RedisBackend])
def backend(request: pytest.FixtureRequest, clean_valkey: Valkey) -> Backend:
    backend: Backend = request.param()
    return backend


def fail(backend: Backend, times: int = 1, *, probe: str = "", name: str = MODEL) -> list[bool]:
    return [
        backend.store.record(name, OPTIONS, ok=False, probe=probe, reason="InternalServerError 500")
        for _ in range(times)
    ]


def succeed(backend: Backend, times: int = 1, *, probe: str = "") -> list[bool]:
    return [backend.store.record(MODEL, OPTIONS, ok=True, probe=probe) for _ in range(times)]


def is_permitted(backend: Backend, token: str = "t", name: str = MODEL) -> bool:
    return backend.store.acquire(name, OPTIONS, token, LEASE).is_permitted


def reading(backend: Backend) -> BreakerReading:
    (found,) = backend.store.read(OPTIONS)
    return found


def test_a_breaker_opens_after_enough_failures(backend: Backend) -> None:
    assert is_permitted(backend)
    assert fail(backend, 3) == [False, False, True]

    permit = backend.store.acquire(MODEL, OPTIONS, "t", LEASE)
    assert not permit.is_permitted
    assert 29 <= permit.retry_in <= 30
    found = reading(backend)
    assert (found.state, found.reason) == (BreakerState.OPEN, "InternalServerError 500")
    assert 29 <= found.retry_in <= 30


def test_breakers_of_other_models_stay_closed(backend: Backend) -> None:
    fail(backend, 3)

    assert is_permitted(backend, name="openai/gpt-5-mini")


def test_a_small_share_of_failures_opens_nothing(backend: Backend) -> None:
    succeed(backend, 10)

    assert not any(fail(backend, 9))
    assert (reading(backend).failures, reading(backend).calls) == (9, 19)
    assert fail(backend) == [True]


def test_failures_leave_the_window(backend: Backend) -> None:
    fail(backend, 2)
    backend.forward(61)

    assert fail(backend, 2) == [False, False]
    assert is_permitted(backend)


def test_an_open_breaker_permits_a_single_probe(backend: Backend) -> None:
    fail(backend, 3)
    backend.forward(31)
    assert reading(backend).state == BreakerState.HALF_OPEN

    assert backend.store.acquire(MODEL, OPTIONS, "first", LEASE).probe == "first"
    assert [is_permitted(backend, token) for token in ("second", "third")] == [False, False]


def test_the_success_of_the_probe_closes_it(backend: Backend) -> None:
    fail(backend, 3)
    backend.forward(31)
    is_permitted(backend, "first")

    assert succeed(backend, probe="first") == [True]
    assert is_permitted(backend)
    assert (reading(backend).state, reading(backend).failures) == (BreakerState.CLOSED, 0)


def test_the_failure_of_the_probe_opens_it_again(backend: Backend) -> None:
    fail(backend, 3)
    backend.forward(31)
    is_permitted(backend, "first")

    assert fail(backend, probe="first") == [True]
    assert not is_permitted(backend, "second")
    backend.forward(31)
    assert is_permitted(backend, "second")


def test_calls_from_before_it_opened_do_not_change_an_open_breaker(backend: Backend) -> None:
    fail(backend, 3)

    assert (succeed(backend), fail(backend)) == ([False], [False])
    backend.forward(31)
    is_permitted(backend, "first")
    assert succeed(backend, probe="other") == [False]
    assert not is_permitted(backend, "second")


def test_another_probe_follows_one_whose_process_has_died(backend: Backend) -> None:
    fail(backend, 3)
    backend.forward(31)
    is_permitted(backend, "died")
    backend.forward(LEASE + 1)

    assert is_permitted(backend, "second")
    assert succeed(backend, probe="died") == [False]


def test_a_probe_that_is_renewed_keeps_its_lease(backend: Backend) -> None:
    fail(backend, 3)
    backend.forward(31)
    is_permitted(backend, "first")
    backend.forward(LEASE - 5)

    assert backend.store.acquire(MODEL, OPTIONS, "first", LEASE).probe == "first"
    backend.forward(LEASE - 5)
    assert not is_permitted(backend, "second")


def test_a_released_probe_makes_room_for_another(backend: Backend) -> None:
    fail(backend, 3)
    backend.forward(31)
    is_permitted(backend, "canceled")
    backend.store.release(MODEL, "someone else's")
    assert not is_permitted(backend, "second")

    backend.store.release(MODEL, "canceled")
    assert is_permitted(backend, "second")


def test_without_failures_no_breaker_opens(backend: Backend) -> None:
    off = BreakerOptions(failures=0, window=60.0, open=30.0, rate=0.0)

    assert not any(backend.store.record(MODEL, off, ok=False) for _ in range(20))


def test_a_reset_closes_breakers(backend: Backend) -> None:
    fail(backend, 3)
    fail(backend, 3, name="other")

    backend.store.reset(MODEL)
    assert [is_permitted(backend), is_permitted(backend, name="other")] == [True, False]
    backend.store.reset()
    assert backend.store.read(OPTIONS) == []


def test_an_entry_of_another_release_is_skipped(clean_valkey: Valkey) -> None:
    queue = RedisQueue()
    queue.client.hset("agentexec:breakers", "x", '{"state": "melted"}')

    assert queue.breakers.read(OPTIONS) == []


def test_the_memory_queue_has_breakers() -> None:
    now = [100.0]
    queue = MemoryQueue(clock=lambda: now[0])
    for _ in range(3):
        queue.breakers.record(MODEL, OPTIONS, ok=False)

    assert queue.breakers.read(OPTIONS)[0].state == BreakerState.OPEN
    queue.clear()
    assert queue.breakers.read(OPTIONS) == []


PROCESS = f"""
import sys
import django
django.setup()
from django_agentexec.queues import get_queue
from django_agentexec.queues.breakers import BreakerOptions
options = BreakerOptions(failures=3, window=60.0, open=30.0, rate=0.5)
store = get_queue().breakers
for line in sys.stdin:
    verb, token = line.split()
    if verb == "acquire":
        reply = store.acquire({MODEL!r}, options, token, 20.0).is_permitted
    else:
        reply = store.record({MODEL!r}, options, ok=verb == "ok", probe=token)
    print(int(reply), flush=True)
"""


class Process:
    """Another process that uses the breakers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, verb: str, token: str) -> bool:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{verb} {token}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline() == "1\n"

    def end(self) -> None:
        self._process.communicate(timeout=30)


def test_a_breaker_opens_and_closes_in_all_processes(clean_valkey: Valkey) -> None:
    here, processes = RedisBackend(), [Process(), Process()]
    try:
        first, second = processes
        assert [first.call("failure", "-"), second.call("failure", "-"), first.call("failure", "-")] == [0, 0, 1]
        assert not any([first.call("acquire", "a"), second.call("acquire", "b"), is_permitted(here)])

        here.forward(31)
        assert [first.call("acquire", "a"), second.call("acquire", "b"), is_permitted(here)] == [True, False, False]
        assert first.call("ok", "a")
        assert all([first.call("acquire", "a"), second.call("acquire", "b"), is_permitted(here)])
    finally:
        for process in processes:
            process.end()
