"""The gate before calls of models, and the thread that ends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from django_agentexec import QueueMisconfigured, QueueUnavailable
from django_agentexec.limits import Bucket, Limit, MemoryLimits, Request, Reservation, Wait, get_store, model_limit
from django_agentexec.limits import bookkeeping as bookkeeping_module
from django_agentexec.limits import gate as gate_module
from django_agentexec.limits.bookkeeping import MAX_AGE, Bookkeeping, bookkeeping
from django_agentexec.limits.gate import MAX_LATE_GRANTS, buckets_for, pass_gate
from django_agentexec.testing import memory_queue

BUCKET = Bucket("gpt-5", Limit("gpt-5", rpm=100, concurrency=5, margin=2.0))


class Steps(MemoryLimits):
    """A store that notes its calls. Each request for a grant takes `delays` seconds on the clock of the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.delays: list[float] = []
        self.now = 0.0

    def reserve(self, request: Request, patience: float | None = None) -> Reservation | Wait:
        self.now += self.delays.pop(0) if self.delays else 0.0
        self.steps.append("reserve")
        return super().reserve(request, patience)

    def settle(self, reservation: Reservation, tokens: int | None) -> None:
        self.steps.append(f"settle {tokens}")
        super().settle(reservation, tokens)

    def cancel(self, reservation: Reservation) -> None:
        self.steps.append("cancel")
        super().cancel(reservation)

    def withdraw(self, request: Request) -> None:
        self.steps.append("withdraw")
        super().withdraw(request)


@pytest.fixture
def store() -> Iterator[Steps]:
    store = Steps()
    with (
        patch.object(gate_module, "get_store", lambda: store),
        patch.object(gate_module, "time", SimpleNamespace(monotonic=lambda: store.now)),
    ):
        yield store


def passed(*buckets: Bucket) -> None:
    async def run() -> None:
        grant = await pass_gate(buckets or (BUCKET,), 10)
        grant.settle(7)

    asyncio.run(run())
    assert bookkeeping.flush(10)


def test_a_call_is_granted_and_ended(store: Steps) -> None:
    passed()
    assert store.steps == ["reserve", "settle 7"]


def test_a_grant_that_arrives_late_is_returned(store: Steps) -> None:
    store.delays = [1.1, 0.9]

    passed()

    assert sorted(store.steps) == ["cancel", "reserve", "reserve", "settle 7"]
    assert store.usage(BUCKET).requests == 1


def test_a_process_that_is_always_late_makes_progress(store: Steps) -> None:
    store.delays = [9.0] * 100

    passed()

    assert store.steps.count("cancel") == MAX_LATE_GRANTS  # a further request may wait for the return of a grant


def test_no_grant_is_late_for_limits_without_a_window(store: Steps) -> None:
    store.delays = [9.0]

    passed(Bucket("gpt-5", Limit("gpt-5", concurrency=5)))

    assert store.steps == ["reserve", "settle 7"]


def test_a_call_that_fails_to_wait_leaves_no_ticket(store: Steps) -> None:
    with (
        patch.object(Steps, "reserve", side_effect=QueueMisconfigured("no permission")),
        pytest.raises(QueueMisconfigured),
    ):
        passed()

    assert bookkeeping.flush(10)
    assert store.steps == ["withdraw"]


def test_code_with_another_client_uses_the_limits(settings: Any) -> None:
    settings.AGENTEXEC = {"MODEL_LIMITS": {"openai/gpt-5": {"rpm": 5, "tpm": 1_000}}}

    async def run() -> None:
        async with model_limit("gpt-5", provider="openai", tokens=500) as grant:
            assert grant is not None
            grant.tokens = 200
        async with model_limit("gpt-4", provider="openai") as none:
            assert none is None

    with memory_queue():
        asyncio.run(run())
        assert bookkeeping.flush(10)
        (bucket,) = buckets_for("gpt-5", "openai", {})
        usage = get_store().usage(bucket)

    assert (usage.requests, usage.tokens) == (1, 200)


class Fake(MemoryLimits):
    def __init__(self) -> None:
        super().__init__()
        self.extended: list[str] = []
        self.settled: list[str] = []
        self.on_extend: Any = None

    def extend(self, reservations: Any) -> None:
        self.extended += [each.id for each in reservations]
        if self.on_extend is not None:
            self.on_extend()

    def settle(self, reservation: Reservation, tokens: int | None) -> None:
        self.settled.append(reservation.id)


class Stepped(Bookkeeping):
    """Without a thread: the test calls its steps."""

    def _wake(self) -> None: ...

    def step(self, *, renews: bool = False) -> None:
        """Take the step of the thread; with `renews`, when leases are to be renewed."""
        if renews:
            self._renewed_at = float("-inf")
        self._process_batch()

    @property
    def pause(self) -> float:
        """The seconds until the next step."""
        return self._interval()

    @property
    def is_done(self) -> bool:
        """Whether no end of a call waits."""
        return not self._steps


def reservation(**limit: Any) -> Reservation:
    return Reservation(Request([Bucket("gpt-5", Limit("gpt-5", **limit))], 0, "ticket"), "id")


def test_leases_of_calls_in_progress_are_renewed() -> None:
    books, store, held = Stepped(), Fake(), reservation(concurrency=1)
    books.hold(store, held)
    books.hold(store, reservation(rpm=1))
    books.step()
    assert store.extended == []  # not due yet

    books.step(renews=True)

    assert store.extended == [held.id]
    books.end(held, lambda: None)
    books.step(renews=True)
    assert store.extended == [held.id]


def test_a_call_that_ends_during_a_renewal_holds_no_slot_again() -> None:
    books, store, held = Stepped(), Fake(), reservation(concurrency=1)
    books.hold(store, held)
    store.on_extend = lambda: books.end(held, lambda: None)

    books.step(renews=True)

    assert store.settled == [held.id]


def test_an_end_that_the_server_does_not_take_is_tried_again() -> None:
    books, done, answers = Stepped(), [], [QueueUnavailable("no"), None]

    def end() -> None:
        if error := answers.pop(0):
            raise error
        done.append("ended")

    books.end(reservation(), end)
    books.step()
    assert (done, books.pause) == ([], bookkeeping_module.RETRY_INTERVAL)

    books.step()

    assert (done, books.pause) == (["ended"], 0.0)


def test_an_end_that_the_server_never_takes_is_dropped() -> None:
    books = Stepped()

    def end() -> None:
        raise QueueUnavailable("no")

    books.end(reservation(), end)
    later = time.monotonic() + 2 * MAX_AGE
    with patch.object(bookkeeping_module, "time", SimpleNamespace(monotonic=lambda: later)):
        books.step()

    assert books.is_done
