"""Whatever happens in whatever order, the Redis backend answers what the in-memory one does.

Random verbs drive both backends; the in-memory one is the model. After every step the places of Redis are
read and checked against the invariants of `lua/prelude.lua`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from django_agentexec.queues import Ack, Claim, Message, Outcome
from django_agentexec.queues.redis.queue import KEYS
from tests.support.queue_backends import MemoryBackend, RedisBackend, StoppedRedisBackend, stopped_clock

QUEUE = "default"
IDS = [uuid5(UUID(int=0), str(number)) for number in range(8)]
PARTITIONS = ["", "k:a", "f:x", "k:a:1", "f:x", "k:b", "f:y", "f:x"]
WORKERS = ["w1", "w2"]
# No sum of steps comes near a delay or a lease (15 s), so that rounding decides nothing.
STEPS, DELAYS = [7.0, 16.0], [0.0, 4.0, 33.5]
INSTANT = 0.02  # seconds between two verbs
ROUNDING = 0.002  # seconds; Redis counts milliseconds


def partition_of(agent_id: UUID) -> str:
    """Return an id's partition, the same at each enqueue, as a row's lock key or fair key is."""
    return PARTITIONS[IDS.index(agent_id) % len(PARTITIONS)] or f"i:{agent_id}"


class Backends(RuleBasedStateMachine):
    """Two backends that receive the same calls at the same times, and must return the same."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = ExitStack()
        self._clock.enter_context(stopped_clock())
        self.memory, self.redis = MemoryBackend(), StoppedRedisBackend()
        self.claims: list[tuple[Claim, Claim]] = []

    @initialize()
    def begin_empty(self) -> None:
        self.redis.queue.clear()

    def teardown(self) -> None:
        self.redis.queue.clear()
        self.redis.queue.close()
        self._clock.close()

    def both(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """Call a verb of both backends, and return the answer on which they agree."""
        self.forward(INSTANT)
        answers = [getattr(backend.queue, verb)(QUEUE, *arguments, **options) for backend in (self.memory, self.redis)]
        assert answers[0] == answers[1], f"{verb}: memory says {answers[0]}, redis {answers[1]}"
        return answers[0]

    def forward(self, seconds: float) -> None:
        for backend in (self.memory, self.redis):
            backend.forward(seconds)
        # Redis extends leases after a time without heartbeats, in which its server may have been unavailable. The
        # in-memory queue is never unavailable.
        now, client = int(self.redis.now * 1_000), self.redis.redis.client
        client.hset(self.redis.key("counters"), mapping={"beat": now, "indexed_beat": now})

    @rule(
        wanted=st.lists(st.sampled_from(IDS), min_size=1, max_size=5),
        priority=st.sampled_from([1, 4, 7]),
        delay=st.sampled_from(DELAYS),
        sequence=st.sampled_from([0, 0, 1, 2]),
        crashes=st.sampled_from([0, 0, 1]),
        again=st.booleans(),
    )
    def enqueue(
        self, wanted: list[UUID], priority: int, delay: float, sequence: int, crashes: int, again: bool
    ) -> None:
        self.both("enqueue", [Message(i, partition_of(i), priority, delay, sequence, crashes, again) for i in wanted])

    @rule(
        data=st.data(),
        worker=st.sampled_from(WORKERS),
        limit=st.integers(0, 4),
        quarantine=st.booleans(),
        acks=st.integers(0, 3),
    )
    def ack_and_claim(self, data: st.DataObject, worker: str, limit: int, quarantine: bool, acks: int) -> None:
        ends = [
            (pair, data.draw(st.sampled_from(Outcome)), data.draw(st.sampled_from(DELAYS)))
            for pair in self._some_claims(data, acks)
        ]
        self.forward(INSTANT)
        memory, redis = (
            backend.queue.ack_and_claim(
                QUEUE,
                worker,
                [Ack(pair[side], outcome, delay) for pair, outcome, delay in ends],
                limit,
                quarantine=quarantine,
            )
            for side, backend in enumerate((self.memory, self.redis))
        )
        both = [[(c.agent_id, c.crashes, c.expired_leases) for c in claims.claimed] for claims in (memory, redis)]
        assert both[0] == both[1]
        assert memory.waiting == redis.waiting
        assert (memory.next_due is None) == (redis.next_due is None)
        if memory.next_due is not None and redis.next_due is not None:
            assert memory.next_due == pytest.approx(redis.next_due, abs=ROUNDING)
        self.claims += zip(memory.claimed, redis.claimed, strict=True)

    def _some_claims(self, data: st.DataObject, most: int) -> list[tuple[Claim, Claim]]:
        """Draw claims, ended and outdated ones among them."""
        if not self.claims:
            return []
        return data.draw(st.lists(st.sampled_from(self.claims[-8:]), max_size=most, unique=True))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def heartbeat(self, data: st.DataObject, worker: str) -> None:
        self.forward(INSTANT)
        pairs = self._some_claims(data, 4)
        beats = [
            backend.queue.heartbeat(QUEUE, worker, [pair[side] for pair in pairs])
            for side, backend in enumerate((self.memory, self.redis))
        ]
        assert beats[0] == beats[1]

    @rule(data=st.data(), worker=st.sampled_from(WORKERS), crashed=st.booleans())
    def release_worker(self, data: st.DataObject, worker: str, crashed: bool) -> None:
        self.forward(INSTANT)
        pairs = self._some_claims(data, 2)
        counts = [
            backend.queue.release_worker(QUEUE, worker, keep=[pair[side] for pair in pairs], crashed=crashed)
            for side, backend in enumerate((self.memory, self.redis))
        ]
        assert counts[0] == counts[1]

    @rule(wanted=st.lists(st.sampled_from(IDS), min_size=1, max_size=3))
    def cancel(self, wanted: list[UUID]) -> None:
        self.both("cancel", wanted)

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.forward(INSTANT)
        pairs = self._some_claims(data, 3)
        counts = [
            backend.queue.request_stop(QUEUE, {pair[side].agent_id: pair[side].fence for pair in pairs})
            for side, backend in enumerate((self.memory, self.redis))
        ]
        assert counts[0] == counts[1]

    @rule(seconds=st.sampled_from(STEPS))
    def let_time_pass(self, seconds: float) -> None:
        self.forward(seconds)

    @invariant()
    def both_know_the_same(self) -> None:
        queues = self.memory.queue, self.redis.queue
        assert queues[0].missing(QUEUE, IDS) == queues[1].missing(QUEUE, IDS)
        assert queues[0].stats(QUEUE) == queues[1].stats(QUEUE)
        assert set(queues[0].list_leases(QUEUE)) == set(queues[1].list_leases(QUEUE))

    @invariant()
    def the_places_of_redis_are_consistent(self) -> None:
        places = Places(self.redis)
        counts = Counter([*places.pending.values(), *places.delayed, *places.leases])
        assert set(counts.values()) <= {1}, "an id in two places"
        assert set(counts) == set(places.meta)
        assert sorted(places.locks) == sorted(places.meta[agent_id] for agent_id in places.leases)
        waiting = {partition for partition, _ in places.pending} - set(places.locks)
        assert places.ready | places.suspects == waiting
        assert not places.ready & places.suspects
        assert set(places.cancels) | set(places.again) <= set(places.leases)
        assert places.by_worker == places.holders
        assert places.expired_leases <= set(places.meta)
        assert places.keys <= {self.redis.key(name) for name in KEYS}


class Places:
    """The content of a queue's keys, by partition and id."""

    def __init__(self, backend: RedisBackend) -> None:
        client: Any = backend.redis.client
        pipe = client.pipeline(transaction=False)
        for name in ("pending", "ready", "suspects", "leases", "delayed"):
            pipe.zrange(backend.key(name), 0, -1)
        for name in ("locks", "meta", "cancels", "again", "lapses"):
            pipe.hgetall(backend.key(name))
        pipe.zrange(backend.key("by_worker"), 0, -1)
        pipe.keys("{*")
        pending, ready, suspects, leases, delayed, locks, meta, cancels, again, expired_leases, by_worker, keys = (
            pipe.execute()
        )
        members = [member.decode().rsplit("\0", 1) for member in pending]
        self.pending = {(partition, rest): rest[17:] for partition, rest in members}
        self.ready, self.suspects = texts(ready), texts(suspects)
        self.leases, self.delayed, self.locks = texts(leases), texts(delayed), texts(locks)
        self.cancels, self.again, self.keys = texts(cancels), texts(again), texts(keys)
        self.expired_leases, self.by_worker = texts(expired_leases), texts(by_worker)
        holders = {agent_id.decode(): text.decode().split(" ")[3] for agent_id, text in meta.items()}
        self.holders = {f"{holders[agent_id]}\0{agent_id}" for agent_id in self.leases}
        self.meta = {agent_id.decode(): text.decode().split(" ", 4)[4] for agent_id, text in meta.items()}


def texts(values: Any) -> set[str]:
    """Return Redis's bytes as text."""
    return {value.decode() for value in values}


TestBackends = Backends.TestCase
TestBackends.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
