"""Shared partitions and limits: the part of the conformance suite for backends with `supports_limits`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from uuid import UUID

import pytest

from django_agentexec import Priority
from django_agentexec.conf import conf
from django_agentexec.ids import uuid7
from django_agentexec.queues import NO_LIMITS, Ack, Claim, Limit, Limits, Message, Outcome
from django_agentexec.queues.limits import shared_partition
from tests.support.queue_backends import Backend, MemoryBackend, claim, ids, limited

QUEUE = "default"


def fair(key: str, *limits: Limit, priority: int = Priority.NORMAL, crashes: int = 0, delay: float = 0.0) -> Message:
    return Message(uuid7(), shared_partition(key), int(priority), delay, crashes=crashes, limits=limits)


def locked(key: str, *limits: Limit) -> Message:
    return Message(uuid7(), f"k:{key}", limits=limits)


def put(backend: Backend, *messages: Message) -> list[UUID]:
    assert backend.queue.enqueue(QUEUE, messages) == len(messages)
    return [message.agent_id for message in messages]


def finish(backend: Backend, *claimed: Claim, outcome: Outcome = Outcome.DONE, limits: tuple[Limit, ...] = ()) -> None:
    backend.queue.ack_and_claim(QUEUE, "w1", [Ack(each, outcome, limits=limits) for each in claimed])


def set_limits(backend: Backend, *limits: Limit, is_paused: bool = False) -> None:
    wanted = Limits({limit.key: limit for limit in limits}, is_paused)
    assert backend.queue.set_limits(QUEUE, wanted, replaces=backend.queue.limits_revision(QUEUE))


# Fair keys


def test_the_first_run_of_a_second_tenant_is_the_second(backend: Backend) -> None:
    busy = put(backend, *[fair("a") for _ in range(20)])
    (quiet,) = put(backend, fair("b"))

    assert ids(claim(backend, 1)) == [busy[0]]
    assert ids(claim(backend, 1)) == [quiet]
    assert ids(claim(backend)) == busy[1:]


@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("tenants", [1, 100])
def test_a_hundred_runs_beside_two_thousand_start_within_201_claims(backend: Backend, tenants: int, batch: int) -> None:
    put(backend, *[fair("busy") for _ in range(2_000)])
    wanted = set(put(backend, *[fair(f"tenant {n % tenants}") for n in range(100)]))

    started: list[UUID] = []
    while not wanted <= set(started):
        started += ids(claim(backend, batch))

    position = max(started.index(agent_id) for agent_id in wanted)
    assert position < 201


def test_runs_of_a_fair_key_run_at_the_same_time_in_order(backend: Backend) -> None:
    wanted = put(backend, *[fair("a") for _ in range(5)])

    claims = claim(backend, 3)
    assert ids(claims) == wanted[:3]
    assert backend.queue.heartbeat(QUEUE, "w1", claims).lost == []
    assert set(backend.queue.list_leases(QUEUE)) == set(wanted[:3])
    finish(backend, *claims)

    assert ids(claim(backend)) == wanted[3:]


def test_a_higher_priority_of_a_busy_key_goes_first(backend: Backend) -> None:
    put(backend, *[fair("a") for _ in range(3)], fair("b"))
    (urgent,) = put(backend, fair("a", priority=Priority.HIGH))

    assert ids(claim(backend, 1)) == [urgent]


def test_a_released_run_returns_to_the_front_of_its_key(backend: Backend) -> None:
    first, second = put(backend, fair("a"), fair("a"))
    (claimed,) = claim(backend, 1)

    finish(backend, claimed, outcome=Outcome.RELEASE)

    assert ids(claim(backend)) == [first, second]


def test_a_retried_run_is_claimed_again(backend: Backend) -> None:
    (wanted,) = put(backend, fair("a"))
    (claimed,) = claim(backend)

    backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claimed, Outcome.RETRY, 5.0)])
    assert claim(backend) == []
    backend.forward(6)

    assert ids(claim(backend)) == [wanted]


def test_a_suspect_leaves_its_key_to_the_others(backend: Backend) -> None:
    first, second = put(backend, fair("a"), fair("a"))
    claim(backend, 1, "dying")
    backend.queue.release_worker(QUEUE, "dying", crashed=True)

    assert ids(claim(backend)) == [second]
    assert backend.queue.stats(QUEUE).suspects == 1
    (suspect,) = claim(backend, quarantine=True)
    assert (suspect.agent_id, suspect.crashes) == (first, 1)
    finish(backend, suspect, outcome=Outcome.RETRY)
    assert ids(claim(backend, quarantine=True)) == [first]


def test_an_expired_lease_is_refunded(backend: Backend) -> None:
    (wanted,) = put(backend, fair("a"))
    (claimed,) = claim(backend)
    backend.forward(conf.LEASE + 1)
    backend.queue.heartbeat(QUEUE, "w2", [])
    assert claim(backend) == []

    assert backend.queue.heartbeat(QUEUE, "w1", [claimed]).lost == [wanted]

    assert ids(claim(backend)) == [wanted]


def test_a_run_that_is_retried_while_it_runs_is_claimed_again(backend: Backend) -> None:
    running = fair("a")
    put(backend, running)
    (claimed,) = claim(backend)
    assert backend.queue.enqueue(QUEUE, [replace(running, again=True)]) == 1

    finish(backend, claimed)

    assert ids(claim(backend)) == [running.agent_id]


def test_a_canceled_run_gives_its_turn_to_the_next(backend: Backend) -> None:
    first, second = put(backend, fair("a"), fair("a"))

    backend.queue.cancel(QUEUE, [first])

    assert ids(claim(backend)) == [second]
    assert backend.queue.missing(QUEUE, [first, second]) == [first]


# Limits


def test_a_maximum_is_kept_until_a_slot_is_free(backend: Backend) -> None:
    three = Limit("task:research", 3)
    wanted = put(backend, *[limited(three) for _ in range(5)])
    (other,) = put(backend, limited())

    claims = claim(backend)
    assert sorted(ids(claims)) == [*wanted[:3], other]
    assert claim(backend) == []
    assert not backend.queue.ack_and_claim(QUEUE, "w1", limit=5).waiting
    assert backend.queue.stats(QUEUE).ready == 0 or isinstance(backend, MemoryBackend)

    finish(backend, claims[0])
    assert ids(claim(backend)) == [wanted[3]]


def test_limited_runs_keep_their_order_among_others(backend: Backend) -> None:
    messages = [
        limited(Limit("task:a", 9)),
        limited(),
        limited(Limit("task:a", 9)),
        limited(),
    ]
    wanted = [agent_id for message in messages for agent_id in put(backend, message)]

    assert [agent_id for _ in wanted for agent_id in ids(claim(backend, 1))] == wanted


def test_a_maximum_counts_over_fair_and_lock_keys(backend: Backend) -> None:
    two = Limit("task:research", 2)
    put(backend, fair("a", two), fair("b", two), locked("c", two), limited(two))

    claims = claim(backend)
    assert len(claims) == 2
    finish(backend, claims[0])
    assert len(claim(backend)) == 1
    finish(backend, claims[1])
    assert len(claim(backend)) == 1


def test_each_key_has_its_own_slots(backend: Backend) -> None:
    put(backend, *[fair(org, Limit(f"org:{org}", 5)) for org in "ab" for _ in range(10)])

    claims = claim(backend)

    assert len(claims) == 10


def test_a_run_behind_another_limit_gives_its_slot_to_the_next(backend: Backend) -> None:
    both, one = (Limit("task:a", 1), Limit("org:1", 1)), Limit("task:a", 1)
    (blocking,) = put(backend, limited(Limit("org:1", 1)))
    (first,) = put(backend, limited(one))
    claims = claim(backend)
    assert len(claims) == 2
    put(backend, fair("x", *both), fair("y", *both))
    (free,) = put(backend, fair("z", one))
    assert claim(backend) == []

    finish(backend, *[each for each in claims if each.agent_id == first])

    assert ids(claim(backend)) == [free]
    assert blocking


@pytest.mark.parametrize("crashed", [True, False])
def test_the_slots_of_a_worker_that_ended_are_free(backend: Backend, crashed: bool) -> None:
    one = Limit("task:a", 1)
    put(backend, limited(one), limited(one))
    claim(backend, worker="dying")
    assert claim(backend) == []

    backend.queue.release_worker(QUEUE, "dying", crashed=crashed)

    assert len(claim(backend)) == 1
    assert claim(backend, quarantine=True) == []


def test_the_slot_of_an_expired_lease_is_free(backend: Backend) -> None:
    one = Limit("task:a", 1)
    first, second = put(backend, limited(one), limited(one))
    claim(backend)

    backend.forward(conf.LEASE + 1)
    backend.queue.heartbeat(QUEUE, "w2", [])

    assert ids(claim(backend)) == [second]
    assert claim(backend, quarantine=True) == []
    assert first


def test_a_lock_key_and_a_limit_apply_together(backend: Backend) -> None:
    two = Limit("task:a", 2)
    wanted = put(backend, locked("x", two), locked("x", two), locked("y", two), locked("z", two))

    claims = claim(backend)
    assert ids(claims) == [wanted[0], wanted[2]]
    finish(backend, claims[1])
    assert ids(claim(backend)) == [wanted[3]]
    finish(backend, claims[0])
    assert ids(claim(backend)) == [wanted[1]]


def test_a_canceled_run_does_not_keep_the_slot_from_the_others(backend: Backend) -> None:
    one = Limit("org:1", 1)
    (first,) = put(backend, fair("a", one))
    (running,) = claim(backend)
    second, third = put(backend, fair("b", one), fair("c", one))
    assert claim(backend) == []
    finish(backend, running)

    backend.queue.cancel(QUEUE, [second])

    assert ids(claim(backend)) == [third]
    assert first


def test_limits_of_rows_take_precedence_at_once(backend: Backend) -> None:
    put(backend, *[limited(Limit("task:a", 1)) for _ in range(10)])
    assert len(claim(backend)) == 1

    set_limits(backend, Limit("task:a", 4))
    assert len(claim(backend)) == 3

    set_limits(backend)
    assert claim(backend) == []


def test_a_maximum_of_zero_pauses_and_its_end_resumes(backend: Backend) -> None:
    wanted = put(backend, *[fair(org, Limit("task:a")) for org in "abc" for _ in range(2)])
    (other,) = put(backend, limited())
    set_limits(backend, Limit("task:a", 0))

    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=10)
    assert ids(claims.claimed) == [other]
    assert claims.limits_revision == backend.queue.limits_revision(QUEUE) != ""

    set_limits(backend)
    assert sorted(ids(claim(backend))) == sorted(wanted)
    assert backend.queue.limits_revision(QUEUE) == ""


def test_a_paused_queue_issues_no_claims_and_takes_acknowledgments(backend: Backend) -> None:
    put(backend, limited(), limited())
    (running,) = claim(backend, 1)
    set_limits(backend, is_paused=True)

    claims = backend.queue.ack_and_claim(QUEUE, "w1", [Ack(running, Outcome.DONE)], limit=10)
    assert (claims.claimed, claims.waiting) == ([], False)
    assert backend.queue.stats(QUEUE).leased == 0

    set_limits(backend)
    assert len(claim(backend)) == 1


def test_only_the_present_limits_are_replaced(backend: Backend) -> None:
    set_limits(backend, Limit("task:a", 1))

    assert not backend.queue.set_limits(QUEUE, NO_LIMITS, replaces="another")

    assert backend.queue.limits_revision(QUEUE) == Limits({"task:a": Limit("task:a", 1)}).revision


@pytest.mark.parametrize("kind", ["own", "shared", "locked", "suspect"])
def test_a_held_run_waits_for_the_limits_that_it_gets(backend: Backend, kind: str) -> None:
    messages = {"own": limited(), "shared": fair("a"), "locked": locked("a"), "suspect": fair("a", crashes=1)}
    (wanted,) = put(backend, messages[kind])
    is_suspect = kind == "suspect"
    set_limits(backend, Limit("task:a", 0))
    (claimed,) = claim(backend, quarantine=is_suspect)

    finish(backend, claimed, outcome=Outcome.HOLD, limits=(Limit("task:a"),))

    assert claim(backend, quarantine=is_suspect) == []
    assert backend.queue.missing(QUEUE, [wanted]) == []
    assert backend.queue.stats(QUEUE).suspects == 0 or isinstance(backend, MemoryBackend)
    set_limits(backend)
    assert ids(claim(backend, quarantine=is_suspect)) == [wanted]


def test_a_rate_is_kept_within_any_period(clocked: Backend) -> None:
    rate = Limit("task:a", count=3, period=60.0)
    put(clocked, *[limited(rate) for _ in range(7)])

    assert len(claim(clocked, 1)) == 1
    clocked.forward(30)
    assert len(claim(clocked)) == 2
    claims = clocked.queue.ack_and_claim(QUEUE, "w1", limit=5)
    assert claims.claimed == []
    assert claims.next_due == pytest.approx(30, abs=0.01)

    clocked.forward(30.01)
    assert len(claim(clocked)) == 1
    clocked.forward(29)
    assert claim(clocked) == []
    clocked.forward(1.01)
    assert len(claim(clocked)) == 2


def test_ended_runs_count_against_a_rate(clocked: Backend) -> None:
    put(clocked, *[limited(Limit("task:a", count=2, period=60.0)) for _ in range(3)])
    finish(clocked, *claim(clocked))

    assert claim(clocked) == []
    clocked.forward(61)
    assert len(claim(clocked)) == 1


def test_everything_is_claimed_once_with_limits(backend: Backend) -> None:
    keys = [("a", "b", "c")[n % 3] for n in range(300)]
    messages = [fair(key, Limit("task:x", 7), Limit(f"org:{key}", 3)) for key in keys]
    orgs = {message.agent_id: key for message, key in zip(messages, keys, strict=True)}
    put(backend, *messages)

    running: list[Claim] = []
    done: list[UUID] = []
    while len(done) < len(messages):
        claims = backend.queue.ack_and_claim(QUEUE, "w1", [Ack(each, Outcome.DONE) for each in running[:2]], limit=5)
        done += ids(running[:2])
        running = running[2:] + claims.claimed
        assert running or len(done) == len(messages), "nothing is claimed although slots are free"
        assert len(running) <= 7
        assert all(count <= 3 for count in Counter(orgs[each.agent_id] for each in running).values())

    assert sorted(done) == sorted(orgs)


def test_a_claim_of_one_activity_waits_for_its_turn_and_its_limits(backend: Backend) -> None:
    def claim_only(message: Message) -> list[UUID]:
        claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=1, only=message.agent_id)
        return [claimed.agent_id for claimed in claims.claimed]

    first, second, third = fair("tenant", Limit("t", 2)), fair("tenant", Limit("t", 2)), fair("tenant", Limit("t", 2))
    put(backend, first, second, third)

    assert claim_only(second) == []
    assert claim_only(first) == [first.agent_id]
    assert claim_only(second) == [second.agent_id]
    assert claim_only(third) == []
    set_limits(backend, Limit("t", 3))
    assert claim_only(third) == [third.agent_id]
    set_limits(backend, is_paused=True)
    put(backend, single := limited())
    assert claim_only(single) == []
