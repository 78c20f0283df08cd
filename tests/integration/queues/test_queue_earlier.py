"""A rolling deploy: workers of release 0.1, whose scripts know no index of leases, on the keys of current workers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from django_agentexec.conf import conf
from django_agentexec.ids import uuid7
from django_agentexec.queues import Ack, Claim, Limit, Limits, Message, Outcome
from django_agentexec.queues.limits import shared_partition
from django_agentexec.queues.redis.queue import KEYS
from tests.support.queue_backends import RedisBackend, message

QUEUE = "default"
SCRIPTS = Path(__file__).parent / "earlier_lua"


class Earlier:
    """A worker of release 0.1: its scripts, their keys and arguments."""

    def __init__(self, backend: RedisBackend, worker: str) -> None:
        self._backend = backend
        self._worker = worker
        self._epoch = b""

    def enqueue(self, wanted: Any) -> None:
        self._run("enqueue", str(wanted.agent_id), 4, 0, 0, 0, 0, wanted.partition)

    def claim(self, limit: int = 10, *, quarantine: bool = False) -> list[Claim]:
        self._epoch, _, _, _, _, *rest = self._ack_and_claim(limit, quarantine)
        parts = iter(rest)
        return [
            Claim(agent_id.decode(), int(fence), int(crashes), QUEUE, ticket.decode())
            for agent_id, fence, crashes, ticket in zip(parts, parts, parts, parts, strict=True)
        ]

    def finish(self, claimed: Claim) -> None:
        self._ack_and_claim(0, False, claimed)

    def heartbeat(self, *claims: Claim) -> list[bytes]:
        """Return what is lost."""
        parts = [part for claim in claims for part in (str(claim.agent_id), claim.fence, claim.ticket)]
        lost: list[bytes] = self._run("heartbeat", self._epoch, 6000, *parts)[1]
        return lost

    def release(self, worker: str) -> int:
        """Put back what another worker has, as its pool does."""
        released: int = self._run("release", worker, 1)
        return released

    def _ack_and_claim(self, limit: int, quarantine: bool, *done: Claim) -> Any:
        ends = [part for claim in done for part in (str(claim.agent_id), claim.fence)]
        return self._run("exchange", self._worker, limit, int(quarantine), self._epoch, "none", 6000, len(done), *ends)

    def _run(self, verb: str, *arguments: Any) -> Any:
        text = (SCRIPTS / "prelude.lua").read_text() + (SCRIPTS / f"{verb}.lua").read_text()
        keys = [self._backend.key(name) for name in KEYS[:12]]
        client: Any = self._backend.redis.client
        return client.eval(text, len(keys), *keys, int(conf.LEASE * 1000), "agentexec", *arguments)


@pytest.fixture
def backend(redis_backend: RedisBackend) -> RedisBackend:
    return redis_backend


@pytest.fixture
def earlier(backend: RedisBackend) -> Earlier:
    return Earlier(backend, "old")


def milliseconds(backend: RedisBackend, count: int) -> None:
    """Let some time pass by the server's clock."""
    client: Any = backend.redis.client
    seconds, microseconds = client.time()
    while client.time() < (seconds, microseconds + 1_000 * count):
        pass


def test_each_runs_what_the_other_has_enqueued(backend: RedisBackend, earlier: Earlier) -> None:
    first, second = message("k:a"), message("k:b")
    earlier.enqueue(first)
    backend.queue.enqueue(QUEUE, [second])

    (ours,) = backend.queue.ack_and_claim(QUEUE, "new", limit=1).claimed
    (theirs,) = earlier.claim()

    assert backend.queue.heartbeat(QUEUE, "new", [ours]).lost == earlier.heartbeat(theirs) == []
    backend.queue.ack_and_claim(QUEUE, "new", [Ack(ours, Outcome.DONE)])
    earlier.finish(theirs)
    assert backend.queue.stats(QUEUE).leased == backend.queue.stats(QUEUE).pending == 0


def test_a_lease_without_an_entry_in_the_index_is_released(backend: RedisBackend, earlier: Earlier) -> None:
    backend.queue.enqueue(QUEUE, [message(), message(), message()])
    (ours,) = backend.queue.ack_and_claim(QUEUE, "new", limit=1).claimed
    earlier.claim(2)

    assert backend.queue.release_worker(QUEUE, "old", crashed=True) == 2

    assert backend.queue.stats(QUEUE).suspects == 2
    assert backend.queue.heartbeat(QUEUE, "new", [ours]).lost == []


def test_as_many_outdated_entries_as_leases_without_one_hide_none(backend: RedisBackend, earlier: Earlier) -> None:
    backend.queue.enqueue(QUEUE, [message()])
    backend.queue.ack_and_claim(QUEUE, "new", limit=1)
    backend.queue.heartbeat(QUEUE, "new", [])
    milliseconds(backend, 2)  # beats differ by their time
    backend.forward(conf.LEASE + 1)
    earlier.heartbeat()  # ends the new worker's lease, and leaves its entry
    (theirs,) = earlier.claim(quarantine=True)
    assert theirs.crashes == 1

    assert backend.queue.release_worker(QUEUE, "old", crashed=False) == 1

    assert backend.queue.stats(QUEUE).leased == 0


def test_an_outdated_entry_releases_nothing(backend: RedisBackend, earlier: Earlier) -> None:
    backend.queue.enqueue(QUEUE, [message(), message()])
    backend.queue.ack_and_claim(QUEUE, "new", limit=1)
    backend.queue.ack_and_claim(QUEUE, "another", limit=1)
    assert earlier.release("new") == 1
    (theirs,) = earlier.claim(quarantine=True)

    assert backend.queue.release_worker(QUEUE, "new", keep=[], crashed=False) == 0

    assert earlier.heartbeat(theirs) == []


def test_nothing_outdated_is_left_when_all_work_is_done(backend: RedisBackend, earlier: Earlier) -> None:
    backend.queue.enqueue(QUEUE, [message(), message()])
    backend.queue.ack_and_claim(QUEUE, "new", limit=2)
    backend.forward(conf.LEASE + 1)
    backend.queue.heartbeat(QUEUE, "new", [])  # two expired leases
    for claimed in earlier.claim(quarantine=True):
        assert claimed.crashes == 0
        earlier.finish(claimed)
    assert backend.redis.client.exists(backend.key("lapses"))

    backend.queue.heartbeat(QUEUE, "new", [])

    left = {backend.key("counters").encode(), backend.key("wake").encode()}
    assert set(backend.redis.client.keys("{*")) <= left  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_both_together_do_everything_once(backend: RedisBackend, earlier: Earlier, seed: int) -> None:
    """Both enqueue, claim, end, lose leases and release each other's workers, in any order."""
    draw = random.Random(seed)
    wanted = [message(f"k:{n % 7}" if n % 2 else "") for n in range(80)]
    for each in wanted:
        draw.choice([earlier.enqueue, lambda m: backend.queue.enqueue(QUEUE, [m])])(each)
    done: list[str] = []
    new: list[Claim] = []
    old: list[Claim] = []

    def end(claimed: Claim, mine: list[Claim]) -> None:
        mine.remove(claimed)
        lost = {str(i) for i in backend.queue.heartbeat(QUEUE, "new", [claimed]).lost}
        if str(claimed.agent_id) not in lost:
            done.append(str(claimed.agent_id))
        if mine is old:
            earlier.finish(claimed)
        else:
            backend.queue.ack_and_claim(QUEUE, "new", [Ack(claimed, Outcome.DONE)])

    for step in range(5_000):
        quarantine = draw.random() < 0.5
        action = draw.random()
        if action < 0.2:
            new += backend.queue.ack_and_claim(QUEUE, "new", limit=3, quarantine=quarantine).claimed
        elif action < 0.4:
            old += earlier.claim(3, quarantine=quarantine)
        elif action < 0.7:
            mine = draw.choice([new, old])
            if mine:
                end(draw.choice([mine[-1], draw.choice(mine)]), mine)
        elif step > 1_000:
            pass  # from here on all goes well
        elif action < 0.75:
            backend.forward(conf.LEASE + 1)
            draw.choice([earlier.heartbeat, lambda: backend.queue.heartbeat(QUEUE, "new", [])])()
        elif action < 0.8:
            draw.choice([earlier.release, lambda w: backend.queue.release_worker(QUEUE, w, crashed=False)])(
                draw.choice(["old", "new"])
            )
        if len(done) == len(wanted) and step > 200:
            break
    backend.queue.heartbeat(QUEUE, "new", [])

    assert sorted(done) == sorted(str(each.agent_id) for each in wanted)
    stats = backend.queue.stats(QUEUE)
    assert (stats.ready, stats.pending, stats.suspects, stats.leased) == (0, 0, 0, 0)
    left = {backend.key("counters").encode(), backend.key("wake").encode()}
    assert set(backend.redis.client.keys("{*")) <= left  # type: ignore[arg-type]


def fair_message(number: int) -> Message:
    """Return a message with a fair key, a limit, or a lock key and a limit."""
    two, org = Limit("task:a", 3), Limit(f"org:{number % 5}", 2)
    agent_id = uuid7()
    partitions = [shared_partition(f"org:{number % 5}"), f"i:{agent_id}", f"k:{number % 7}"]
    return Message(agent_id, partitions[number % 3], limits=[(), (two,), (two, org)][number % 4 % 3])


@pytest.mark.parametrize("seed", range(8))
def test_both_together_do_everything_with_fair_keys_and_limits_once(
    backend: RedisBackend, earlier: Earlier, seed: int
) -> None:
    """An earlier release ignores limits, but neither loses nor strands activities, nor loses slots."""
    draw = random.Random(seed)
    wanted = [fair_message(n) for n in range(120)]
    backend.queue.enqueue(QUEUE, wanted)
    done: list[str] = []
    new: list[Claim] = []
    old: list[Claim] = []

    def end(claimed: Claim, mine: list[Claim]) -> None:
        mine.remove(claimed)
        lost = earlier.heartbeat(claimed) if mine is old else backend.queue.heartbeat(QUEUE, "new", [claimed]).lost
        if not lost:
            done.append(str(claimed.agent_id))
        if mine is old:
            earlier.finish(claimed)
        else:
            backend.queue.ack_and_claim(QUEUE, "new", [Ack(claimed, Outcome.DONE)])

    for step in range(6_000):
        quarantine, action = draw.random() < 0.5, draw.random()
        if action < 0.2:
            new += backend.queue.ack_and_claim(QUEUE, "new", limit=3, quarantine=quarantine).claimed
        elif action < 0.25 and step < 1_000:
            old += earlier.claim(3, quarantine=quarantine)
        elif action < 0.7:
            mine = draw.choice([new, old])
            if mine:
                end(draw.choice(mine), mine)
        elif action < 0.75 and step < 1_000:
            backend.forward(conf.LEASE + 1)
            draw.choice([earlier.heartbeat, lambda: backend.queue.heartbeat(QUEUE, "new", [])])()
        elif action < 0.8 and step < 1_000:
            backend.queue.release_worker(QUEUE, draw.choice(["old", "new"]), crashed=False)
        elif action < 0.85:
            backend.queue.heartbeat(QUEUE, "new", [])
        if len(done) == len(wanted):
            break
    for _ in range(3):
        backend.queue.heartbeat(QUEUE, "new", [])

    assert sorted(done) == sorted(str(each.agent_id) for each in wanted)
    stats = backend.queue.stats(QUEUE)
    assert (stats.ready, stats.pending, stats.suspects, stats.leased) == (0, 0, 0, 0)
    left = {backend.key("counters").encode(), backend.key("wake").encode()}
    assert set(backend.redis.client.keys("{*")) <= left  # type: ignore[arg-type]


def test_parked_work_does_not_look_like_lost_data(backend: RedisBackend, earlier: Earlier) -> None:
    nothing = Limits({"task:a": Limit("task:a", 0)})
    assert backend.queue.set_limits(QUEUE, nothing, replaces="")
    backend.queue.enqueue(QUEUE, [Message(uuid7(), shared_partition("a"), limits=(Limit("task:a"),))])
    assert backend.queue.ack_and_claim(QUEUE, "new", limit=1).claimed == []

    earlier.heartbeat()

    assert backend.queue.stats(QUEUE).pending == 1
    assert not backend.queue.ack_and_claim(QUEUE, "new", limit=1).needs_recovery


def test_an_evicted_index_is_made_again(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message(), message()])
    for worker in ("w1", "w2"):
        backend.queue.ack_and_claim(QUEUE, worker, limit=1)
        backend.queue.heartbeat(QUEUE, worker, [])
    backend.redis.client.delete(backend.key("by_worker"))

    assert backend.queue.release_worker(QUEUE, "w1", keep=[], crashed=False) == 1
    assert backend.queue.release_worker(QUEUE, "w2", crashed=True) == 1
