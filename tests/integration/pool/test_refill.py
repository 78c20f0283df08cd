"""The refill of a queue that has lost its data: one of the pools does it, and another takes over if it dies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from django_agentexec.pool import reconciler
from django_agentexec.pool.reconciler import RECOVERY_LEASE
from django_agentexec.queues import DatabaseState, Queue, get_queue
from tests.support.stepped_pool import SteppedReconciler
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)
QUEUE = "default"


@pytest.fixture
def queue() -> Queue:
    """A queue that has lost an activity."""
    queue = get_queue()
    shout.enqueue(Text())
    queue.clear()
    assert queue.ack_and_claim(QUEUE, "w1", rows=DatabaseState.WAITING).needs_recovery
    return queue


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry per comparison with the rows."""
    runs: list[None] = []
    original = reconciler.reconcile

    def read_counters(**options: object) -> int:
        runs.append(None)
        return original(**options)  # type: ignore[arg-type]

    monkeypatch.setattr(reconciler, "reconcile", read_counters)
    return runs


def look(holder: str) -> None:
    """Let a pool's reconciler look, as its thread does after a worker's report."""
    one = SteppedReconciler(holder, [QUEUE])
    one.request_recovery()
    one.step()


def test_one_pool_refills_for_all(queue: Queue, runs: list[None]) -> None:
    assert queue.try_acquire_leadership(f"refill:{QUEUE}:{queue.begin_recovery(QUEUE)}", "b", RECOVERY_LEASE)
    for holder in ("a", "c"):
        look(holder)
    assert runs == []
    assert queue.ack_and_claim(QUEUE, "w1").needs_recovery

    look("b")

    assert len(runs) == 1
    assert not queue.ack_and_claim(QUEUE, "w1").needs_recovery
    assert queue.stats(QUEUE).pending == 1


def test_a_report_that_comes_after_the_refill_compares_nothing(queue: Queue, runs: list[None]) -> None:
    for holder in ("a", "b", "c"):
        look(holder)

    assert len(runs) == 1


def test_each_loss_has_a_leader_of_its_own(queue: Queue, runs: list[None]) -> None:
    look("a")
    queue.clear()
    assert queue.ack_and_claim(QUEUE, "w1", rows=DatabaseState.WAITING).needs_recovery

    look("b")

    assert len(runs) == 2
    assert not queue.ack_and_claim(QUEUE, "w1").needs_recovery


def test_a_leader_that_works_for_long_keeps_its_lead(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, runs: list[None]
) -> None:
    led: list[str] = []
    original: Callable[..., bool] = queue.try_acquire_leadership

    def try_acquire_leadership(duty: str, holder: str, seconds: float) -> bool:
        led.append(duty)
        return original(duty, holder, seconds)

    monkeypatch.setattr(queue, "try_acquire_leadership", try_acquire_leadership)
    monkeypatch.setattr(reconciler, "RECOVERY_RENEWAL", 0.0)

    look("a")

    assert sum(duty.startswith("refill:") for duty in led) > 1
