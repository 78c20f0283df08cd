"""The order and the weights of a worker's queues."""

from __future__ import annotations

from collections import Counter

import pytest
from django.test import override_settings

from django_agentexec import InvalidOption
from django_agentexec.ids import uuid7
from django_agentexec.pool.queue_weights import read_queues
from django_agentexec.queues import Claim, Message, Outcome
from django_agentexec.queues.memory import MemoryQueue
from django_agentexec.worker.queue_shares import QueueShares
from tests.support.stepped_worker import SteppedClaimer


def test_slots_are_distributed_by_weight_over_time() -> None:
    shares = QueueShares(["a", "b", "c"], [5, 3, 2])
    given: Counter[str] = Counter()
    for _ in range(100):
        given.update(shares.of(1))

    assert given == {"a": 50, "b": 30, "c": 20}
    assert shares.of(10) == {"a": 5, "b": 3, "c": 2}


def test_without_weights_the_first_queue_may_take_all() -> None:
    assert QueueShares(["a", "b"]).of(3) == {"a": 3, "b": 3}


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


def fill(queue: MemoryQueue, **counts: int) -> None:
    for name, count in counts.items():
        ids = [uuid7() for _ in range(count)]
        queue.enqueue(name, [Message(agent_id, f"i:{agent_id}") for agent_id in ids])


def claims(queue: MemoryQueue, capacity: int, weights: list[int], turns: int = 1) -> Counter[str]:
    """Return the claims of each queue; in each turn all claims end."""
    found: list[Claim] = []
    claimer = SteppedClaimer(
        queue, ["a", "b"], "w", capacity, on_claim=found.append, on_end=lambda: None, weights=weights, burst=True
    )
    done = 0
    for _ in range(turns):
        claimer.take_turn()
        for claim in found[done:]:
            claimer.ack(claim, Outcome.DONE)
        done = len(found)
    return Counter(claim.queue for claim in found)


def test_both_queues_get_their_share_of_free_slots(queue: MemoryQueue) -> None:
    fill(queue, a=100, b=100)

    assert claims(queue, 8, [3, 1]) == {"a": 6, "b": 2}


def test_single_slots_are_shared_over_time(queue: MemoryQueue) -> None:
    fill(queue, a=100, b=100)

    assert claims(queue, 1, [3, 1], turns=40) == {"a": 30, "b": 10}


@pytest.mark.parametrize(("a", "b"), [(100, 0), (0, 100), (1, 100), (100, 1)])
def test_unused_slots_go_to_the_other_queue(queue: MemoryQueue, a: int, b: int) -> None:
    fill(queue, a=a, b=b)

    assert claims(queue, 8, [1, 1]).total() == 8


def test_without_weights_the_order_is_strict(queue: MemoryQueue) -> None:
    fill(queue, a=100, b=100)

    assert claims(queue, 8, []) == {"a": 8}


def test_the_option_names_queues_and_weights() -> None:
    assert read_queues("high:3, low:1") == (("high", "low"), (3, 1))
    assert read_queues("high,low") == (("high", "low"), ())
    with override_settings(AGENTEXEC={"QUEUES": ["high", "low"], "QUEUE_WEIGHTS": {"low": 1, "high": 2}}):
        assert read_queues(None) == (("high", "low"), (2, 1))
        assert read_queues("high,low") == (("high", "low"), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:3,b", "Queue 'b' has no weight"),
        ("a:0", "weight '0'"),
        ("a:x", "weight 'x'"),
        ("a:", "weight ''"),
        ("a:1001", "weight '1001'"),
        ("a b:1", "not a queue name"),
    ],
)
def test_an_invalid_option_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        read_queues(text)


@pytest.mark.parametrize("weight", [0, True, "3", 1.5, 1_001])
def test_invalid_weights_of_the_settings_are_refused(weight: object) -> None:
    with (
        override_settings(AGENTEXEC={"QUEUES": ["a"], "QUEUE_WEIGHTS": {"a": weight}}),
        pytest.raises(InvalidOption, match="must be a number from 1 to 1,000"),
    ):
        read_queues(None)
