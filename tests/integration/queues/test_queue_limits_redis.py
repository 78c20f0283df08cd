"""Limits on Redis: losses of data, restored claims, and the cost of a claim."""

from __future__ import annotations

from typing import Any

import pytest

from django_agentexec.queues import Ack, DatabaseState, Limit, Limits, Outcome
from django_agentexec.queues.limits import shared_partition
from tests.support.queue_backends import RedisBackend, limited, message, refill

QUEUE = "default"


@pytest.fixture
def backend(redis_backend: RedisBackend) -> RedisBackend:
    return redis_backend


@pytest.mark.parametrize("partition", ["", "k:a", shared_partition("a")])
def test_restored_claims_hold_their_slots_after_a_flush(backend: RedisBackend, partition: str) -> None:
    one = Limit("task:a", 1)
    running, waiting = limited(one, partition=partition), limited(one)
    for each in (running, waiting):
        backend.queue.enqueue(QUEUE, [each])
    (claim,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=2).claimed

    backend.redis.client.flushall()
    assert backend.queue.ack_and_claim(QUEUE, "w1", limit=1, rows=DatabaseState.RUNNING).paused
    assert backend.queue.heartbeat(QUEUE, "w1", [claim]).lost == []
    backend.queue.enqueue(QUEUE, [running, waiting])  # as the recovery does
    refill(backend.queue)
    backend.forward(10)

    assert backend.queue.ack_and_claim(QUEUE, "w1", limit=2).claimed == []
    (last,) = backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claim, Outcome.DONE)], limit=2).claimed
    assert last.agent_id == waiting.agent_id


def test_an_activity_that_was_enqueued_again_is_not_claimed_beside_its_restored_claim(backend: RedisBackend) -> None:
    running, waiting = (limited(partition=shared_partition("a")) for _ in range(2))
    backend.queue.enqueue(QUEUE, [running])
    (claim,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed

    backend.redis.client.flushall()
    backend.queue.ack_and_claim(QUEUE, "w1", rows=DatabaseState.RUNNING)
    backend.queue.enqueue(QUEUE, [running, waiting])
    assert backend.queue.heartbeat(QUEUE, "w1", [claim]).lost == []
    refill(backend.queue)
    backend.forward(10)

    (other,) = backend.queue.ack_and_claim(QUEUE, "w2", limit=5).claimed
    assert other.agent_id == waiting.agent_id


@pytest.mark.parametrize("key", ["parked", "slots", "counters", "ready", "overrides"])
def test_work_survives_the_eviction_of_a_key(backend: RedisBackend, key: str) -> None:
    one = Limit("task:a", 1)
    messages = [limited(one, partition=shared_partition(org)) for org in "abc"]
    backend.queue.enqueue(QUEUE, messages)
    (claim,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=5).claimed
    assert backend.queue.ack_and_claim(QUEUE, "w1", limit=5).claimed == []

    backend.redis.client.delete(backend.key(key))
    done = {claim.agent_id}
    claims = [claim]
    for _ in range(20):
        backend.queue.heartbeat(QUEUE, "w1", claims)
        backend.queue.enqueue(QUEUE, [each for each in messages if each.agent_id not in done])  # as the reconciler
        refill(backend.queue)
        backend.forward(10)
        claims = backend.queue.ack_and_claim(QUEUE, "w1", [Ack(each, Outcome.DONE) for each in claims], limit=5).claimed
        done |= {each.agent_id for each in claims}

    assert done == {each.agent_id for each in messages}


def commands(backend: RedisBackend, work: Any) -> int:
    """Return the number of commands that `work` makes the server execute, within scripts too."""
    client: Any = backend.redis.client
    client.config_resetstat()
    work()
    stats = client.info("commandstats")
    return sum(
        entry["calls"] for name, entry in stats.items() if not name.startswith(("cmdstat_config", "cmdstat_info"))
    )


def test_a_claim_without_limits_executes_as_many_commands_as_before(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message(), message()])  # the scripts are loaded now
    (claim,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed

    def claim_and_finish() -> None:
        backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claim, Outcome.DONE)], limit=1)

    # The scripts before limits executed as many, measured in the same way.
    assert commands(backend, claim_and_finish) <= 24
    assert commands(backend, lambda: backend.queue.enqueue(QUEUE, [message()])) <= 14


def test_a_claim_executes_the_same_commands_with_many_parked_keys(backend: RedisBackend) -> None:
    def cost(keys: int) -> int:
        backend.queue.clear()
        backend.queue.enqueue(
            QUEUE,
            [limited(Limit(f"org:{n}", 1), partition=shared_partition(str(n))) for n in range(keys) for _ in range(2)],
        )
        while backend.queue.ack_and_claim(QUEUE, "busy", limit=500).waiting:
            pass
        backend.queue.enqueue(QUEUE, [limited(Limit("org:free", 1), partition=shared_partition("free"))])
        return commands(backend, lambda: backend.queue.ack_and_claim(QUEUE, "w", limit=1))

    assert cost(2_000) == cost(20)


def test_a_pause_of_many_keys_ends_for_all(backend: RedisBackend) -> None:
    keys = 3_000
    backend.queue.enqueue(QUEUE, [limited(Limit("task:a"), partition=shared_partition(str(n))) for n in range(keys)])
    assert backend.queue.set_limits(QUEUE, Limits({"task:a": Limit("task:a", 0)}), replaces="")
    while backend.queue.ack_and_claim(QUEUE, "w", limit=500).waiting:
        pass
    assert backend.queue.stats(QUEUE).ready == 0

    revision = backend.queue.limits_revision(QUEUE)
    assert backend.queue.set_limits(QUEUE, Limits(), replaces=revision)

    claimed = 0
    while claims := backend.queue.ack_and_claim(QUEUE, "w", limit=500).claimed:
        claimed += len(claims)
    assert claimed == keys
