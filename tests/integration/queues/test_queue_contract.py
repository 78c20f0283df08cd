"""The conformance suite of queue backends: every backend passes every test.

To test another backend, add its `Backend` (a queue with a clock that can be moved) to the fixture of `conftest.py`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from uuid import UUID

import pytest

from django_agentexec import Priority
from django_agentexec.conf import conf
from django_agentexec.ids import uuid7
from django_agentexec.queues import Ack, Claim, Message, Outcome, WorkerInfo
from tests.support.queue_backends import Backend, claim, ids

QUEUE = "default"


def message(key: str = "", *, priority: int = Priority.NORMAL, delay: float = 0.0, crashes: int = 0) -> Message:
    agent_id = uuid7()
    return Message(agent_id, f"k:{key}" if key else f"i:{agent_id}", int(priority), delay, crashes=crashes)


def put(backend: Backend, *messages: Message) -> list[UUID]:
    backend.queue.enqueue(QUEUE, messages)
    return [message.agent_id for message in messages]


def finish(
    backend: Backend, claimed: Claim, outcome: Outcome = Outcome.DONE, delay: float = 0.0, worker: str = "w1"
) -> None:
    backend.queue.ack_and_claim(QUEUE, worker, [Ack(claimed, outcome, delay)])


def test_what_is_enqueued_is_claimed_in_order_and_once(backend: Backend) -> None:
    wanted = put(backend, message(), message(), message())

    assert ids(claim(backend)) == wanted
    assert claim(backend) == []


def test_a_limit_is_kept_and_the_rest_is_told(backend: Backend) -> None:
    wanted = put(backend, message(), message(), message())

    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=2)

    assert ids(claims.claimed) == wanted[:2]
    assert claims.waiting
    assert not backend.queue.ack_and_claim(QUEUE, "w1", limit=2).waiting


def test_an_id_that_is_there_already_is_not_added_again(backend: Backend) -> None:
    waiting = message()
    assert backend.queue.enqueue(QUEUE, [waiting]) == 1
    assert backend.queue.enqueue(QUEUE, [waiting]) == 0

    (claimed,) = claim(backend)

    assert backend.queue.enqueue(QUEUE, [waiting]) == 0
    finish(backend, claimed)
    assert claim(backend) == []


def test_high_goes_before_normal_before_low_and_equals_in_order_of_arrival(backend: Backend) -> None:
    low, normal, high_1, high_2 = put(
        backend,
        message(priority=Priority.LOW),
        message(priority=Priority.NORMAL),
        message(priority=Priority.HIGH),
        message(priority=Priority.HIGH),
    )

    assert ids(claim(backend)) == [high_1, high_2, normal, low]


def claim_only(backend: Backend, agent_id: UUID) -> list[UUID]:
    return ids(backend.queue.ack_and_claim(QUEUE, "w1", limit=1, only=agent_id).claimed)


def test_a_claim_of_one_activity_leaves_the_others(backend: Backend) -> None:
    first, wanted, last = put(backend, message(), message(), message())

    assert claim_only(backend, wanted) == [wanted]
    assert claim_only(backend, wanted) == []
    # Else its worker would ask again at once.
    assert not backend.queue.ack_and_claim(QUEUE, "w1", limit=1, only=wanted).waiting
    assert ids(claim(backend)) == [first, last]


def test_the_end_of_a_single_claim_wakes_others_for_the_next_with_its_lock_key(backend: Backend) -> None:
    first, second = put(backend, message("k"), message("k"))
    (claimed,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1, only=first).claimed
    while backend.queue.wait([QUEUE], 0.05):
        pass  # notices of the enqueue

    backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claimed, Outcome.DONE)], only=first)

    assert backend.queue.wait([QUEUE], 5)
    assert ids(claim(backend)) == [second]


def test_a_claim_of_one_activity_keeps_the_order_of_its_lock_key(backend: Backend) -> None:
    first, second = put(backend, message("k"), message("k"))

    assert claim_only(backend, second) == []
    assert claim_only(backend, first) == [first]
    assert claim_only(backend, second) == []


def test_a_claim_of_one_activity_waits_until_it_is_due_and_takes_suspects(backend: Backend) -> None:
    delayed, suspect = put(backend, message(delay=60), message(crashes=1))

    assert claim_only(backend, delayed) == []
    assert claim_only(backend, suspect) == [suspect]
    assert claim_only(backend, uuid7()) == []


def test_one_partition_runs_one_at_a_time_in_order(backend: Backend) -> None:
    first, second, other = put(backend, message("a"), message("a"), message("b"))

    claims = claim(backend)
    assert ids(claims) == [first, other]

    finish(backend, claims[0])
    assert ids(claim(backend)) == [second]


def test_high_goes_first_inside_a_partition_too(backend: Backend) -> None:
    _, urgent = put(backend, message("a"), message("a", priority=Priority.HIGH))

    assert ids(claim(backend)) == [urgent]


def test_a_high_activity_moves_its_waiting_partition_to_the_front(backend: Backend) -> None:
    _, _, urgent = put(backend, message("a"), message("b"), message("b", priority=Priority.HIGH))

    assert ids(claim(backend, 1)) == [urgent]


def test_a_partition_rejoins_the_ring_at_its_tail(backend: Backend) -> None:
    busy = put(backend, *[message("busy") for _ in range(3)])
    (quiet,) = put(backend, message("quiet"))

    (first,) = claim(backend, 1)
    finish(backend, first)

    assert ids(claim(backend, 1)) == [quiet]
    assert ids(claim(backend, 1)) == [busy[1]]


def test_partitions_whose_names_begin_alike_are_different(backend: Backend) -> None:
    wanted = put(backend, message("a"), message("a:1"), message("a "), message("aa"), message("a\x01"), message("Ä\n"))

    assert set(ids(claim(backend))) == set(wanted)


def test_fences_only_grow(backend: Backend) -> None:
    put(backend, *[message("a") for _ in range(3)])
    fences = []
    for _ in range(3):
        (claimed,) = claim(backend)
        fences.append(claimed.fence)
        finish(backend, claimed)

    assert fences == sorted(set(fences))


def test_acknowledging_and_claiming_is_one_exchange(backend: Backend) -> None:
    _, second = put(backend, message("a"), message("a"))
    (claimed,) = claim(backend)

    claims = backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claimed, Outcome.DONE)], limit=1)

    assert ids(claims.claimed) == [second]


def test_delayed_work_waits_for_its_time(backend: Backend) -> None:
    (wanted,) = put(backend, message(delay=30))

    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=1)
    assert claims.claimed == []
    assert claims.next_due == pytest.approx(30, abs=1)

    backend.forward(31)
    assert ids(claim(backend)) == [wanted]


def test_a_heartbeat_promotes_due_work(backend: Backend) -> None:
    put(backend, message(delay=30))
    claim(backend)
    backend.forward(31)

    backend.queue.heartbeat(QUEUE, "w1", [])

    assert backend.queue.stats(QUEUE).delayed == 0
    assert backend.queue.stats(QUEUE).ready == 1


def test_a_retry_comes_back_at_once_or_after_its_delay(backend: Backend) -> None:
    (wanted,) = put(backend, message())
    (claimed,) = claim(backend)
    finish(backend, claimed, Outcome.RETRY)
    (claimed,) = claim(backend)
    assert claimed.agent_id == wanted

    finish(backend, claimed, Outcome.RETRY, delay=60)
    assert claim(backend) == []
    backend.forward(61)
    assert ids(claim(backend)) == [wanted]


def test_a_delayed_retry_lets_the_next_of_its_partition_go(backend: Backend) -> None:
    _, second = put(backend, message("a"), message("a"))
    (claimed,) = claim(backend)

    finish(backend, claimed, Outcome.RETRY, delay=60)

    assert ids(claim(backend)) == [second]


def test_released_work_takes_its_old_place(backend: Backend) -> None:
    first, second = put(backend, message("a"), message("a"))
    (claimed,) = claim(backend)

    finish(backend, claimed, Outcome.RELEASE)

    (claimed,) = claim(backend)
    assert claimed.agent_id == first
    assert claimed.crashes == 0
    finish(backend, claimed)
    assert ids(claim(backend)) == [second]


@pytest.mark.parametrize("crashed", [False, True])
def test_nobody_who_came_back_with_an_earlier_place_overtakes_released_work(backend: Backend, crashed: bool) -> None:
    (first,) = put(backend, replace(message("a"), sequence=1_000))
    claim(backend)
    # As after a loss of data, when rows are pushed again by the time of their creation.
    (second,) = put(backend, replace(message("a"), sequence=999))

    backend.queue.release_worker(QUEUE, "w1", crashed=crashed)

    (claimed,) = claim(backend, quarantine=crashed)
    assert claimed.agent_id == first
    finish(backend, claimed)
    assert ids(claim(backend)) == [second]


def test_a_heartbeat_extends_the_lease(backend: Backend) -> None:
    put(backend, message())
    (claimed,) = claim(backend)
    for _ in range(3):
        backend.forward(conf.LEASE * 0.8)
        assert backend.queue.heartbeat(QUEUE, "w1", [claimed]).lost == []

    assert backend.queue.stats(QUEUE).leased == 1


def let_lease_end(backend: Backend) -> None:
    backend.forward(conf.LEASE + 1)
    backend.queue.heartbeat(QUEUE, "other", [])


def test_an_ended_lease_is_put_back_for_quarantine_and_is_no_crash(backend: Backend) -> None:
    (wanted,) = put(backend, message("a"))
    (old,) = claim(backend)
    let_lease_end(backend)

    assert claim(backend) == []
    (new,) = claim(backend, worker="w2", quarantine=True)

    assert (new.agent_id, new.crashes, new.expired_leases) == (wanted, 0, 1)
    assert new.fence > old.fence
    assert backend.queue.heartbeat(QUEUE, "w1", [old]).lost == [wanted]


def test_a_worker_that_heartbeats_after_its_lease_is_refunded_the_lapse(backend: Backend) -> None:
    (wanted,) = put(backend, message("a"))
    (old,) = claim(backend)
    let_lease_end(backend)
    assert backend.queue.stats(QUEUE).suspects == 1

    assert backend.queue.heartbeat(QUEUE, "w1", [old]).lost == [wanted]

    assert (backend.queue.stats(QUEUE).suspects, backend.queue.stats(QUEUE).ready) == (0, 1)
    (again,) = claim(backend, worker="w2")
    assert (again.agent_id, again.crashes, again.expired_leases) == (wanted, 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.RETRY])
def test_a_worker_that_acknowledges_after_its_lease_is_refunded_the_lapse(backend: Backend, outcome: Outcome) -> None:
    (wanted,) = put(backend, message("a"))
    (old,) = claim(backend)
    let_lease_end(backend)
    (new,) = claim(backend, worker="w2", quarantine=True)

    finish(backend, old, outcome)

    assert backend.queue.heartbeat(QUEUE, "w2", [new]).lost == []
    finish(backend, new, Outcome.RELEASE, worker="w2")
    (again,) = claim(backend)
    assert (again.agent_id, again.expired_leases) == (wanted, 0)


def test_a_lapse_is_refunded_once_and_only_to_its_own_claim(backend: Backend) -> None:
    put(backend, message())
    (first,) = claim(backend)
    let_lease_end(backend)
    (second,) = claim(backend, quarantine=True)
    let_lease_end(backend)

    for _ in range(2):
        backend.queue.heartbeat(QUEUE, "w1", [first])

    (third,) = claim(backend, quarantine=True)
    assert third.expired_leases == 1
    backend.queue.heartbeat(QUEUE, "w1", [second])
    finish(backend, third, Outcome.RELEASE)
    assert [c.expired_leases for c in claim(backend)] == [0]


def test_four_refunded_lapses_count_as_one(backend: Backend) -> None:
    put(backend, message())
    counts = []
    for _ in range(5):
        (claimed,) = claim(backend)
        counts.append(claimed.expired_leases)
        let_lease_end(backend)
        backend.queue.heartbeat(QUEUE, "w1", [claimed])

    assert counts == [0, 0, 0, 0, 1]


def test_lapses_are_forgotten_with_the_activity(backend: Backend) -> None:
    wanted = message()
    put(backend, wanted)
    claim(backend)
    let_lease_end(backend)
    (claimed,) = claim(backend, quarantine=True)
    finish(backend, claimed)

    put(backend, wanted)

    assert [c.expired_leases for c in claim(backend)] == [0]


def test_the_next_claim_is_above_the_fence_of_the_row(backend: Backend) -> None:
    put(backend, message())
    (claimed,) = claim(backend)
    a_day_ahead = claimed.fence + 86_400_000_000
    put(backend, message("a"), replace(message("b"), fence=a_day_ahead), message("c"))

    fences = [c.fence for c in claim(backend)]

    assert min(fences) > a_day_ahead
    assert fences == sorted(set(fences))


def test_an_outdated_acknowledgment_changes_nothing(backend: Backend) -> None:
    put(backend, message("a"))
    (old,) = claim(backend)
    backend.forward(conf.LEASE + 1)
    backend.queue.heartbeat(QUEUE, "w2", [])
    (new,) = claim(backend, worker="w2", quarantine=True)

    finish(backend, old)

    assert backend.queue.stats(QUEUE).leased == 1
    assert backend.queue.heartbeat(QUEUE, "w2", [new]).lost == []


def test_suspects_go_to_quarantine_only(backend: Backend) -> None:
    (suspect,) = put(backend, message(crashes=1))
    (normal,) = put(backend, message())

    assert ids(claim(backend)) == [normal]
    assert backend.queue.stats(QUEUE).suspects == 1
    assert ids(claim(backend, quarantine=True)) == [suspect]


def test_a_partition_whose_head_is_a_suspect_waits_for_quarantine(backend: Backend) -> None:
    first, second = put(backend, message("a", crashes=1), message("a"))

    assert claim(backend) == []
    (claimed,) = claim(backend, quarantine=True)
    assert claimed.agent_id == first
    finish(backend, claimed)
    assert ids(claim(backend)) == [second]


def test_a_dead_workers_claims_go_back_at_once(backend: Backend) -> None:
    put(backend, message(), message("a"))
    (kept,) = put(backend, message())
    claims = claim(backend, 2, worker="dead")
    assert len(claims) == 2
    (other,) = claim(backend, worker="alive")

    assert backend.queue.release_worker(QUEUE, "dead", crashed=True) == 2

    assert {c.crashes for c in claim(backend, quarantine=True)} == {1}
    assert other.agent_id == kept
    assert backend.queue.heartbeat(QUEUE, "alive", [other]).lost == []


def test_claims_that_a_worker_never_heard_of_go_back_uncharged(backend: Backend) -> None:
    known, unheard = put(backend, message(), message())
    claims = claim(backend, 2)

    assert backend.queue.release_worker(QUEUE, "w1", keep=[claims[0]], crashed=False) == 1

    (again,) = claim(backend)
    assert (again.agent_id, again.crashes) == (unheard, 0)
    assert backend.queue.heartbeat(QUEUE, "w1", [claims[0]]).lost == []
    assert claims[0].agent_id == known


def test_an_unheard_claim_goes_back_though_an_older_claim_of_the_same_work_is_kept(backend: Backend) -> None:
    (wanted,) = put(backend, message())
    (known,) = claim(backend)
    finish(backend, known, Outcome.RETRY)
    claim(backend)  # the reply is lost

    assert backend.queue.release_worker(QUEUE, "w1", keep=[known], crashed=False) == 1

    assert ids(claim(backend)) == [wanted]


def test_of_two_claims_of_the_same_work_the_older_one_is_lost(backend: Backend) -> None:
    (wanted,) = put(backend, message())
    (old,) = claim(backend)
    finish(backend, old, Outcome.RETRY)
    (new,) = claim(backend)

    assert backend.queue.heartbeat(QUEUE, "w1", [old, new]).lost == [wanted]
    assert backend.queue.heartbeat(QUEUE, "w1", [new]).lost == []


def test_canceling_waiting_work_removes_it(backend: Backend) -> None:
    waiting, later, left = put(backend, message("a"), message(delay=60), message("a"))

    backend.queue.cancel(QUEUE, [waiting, later])

    assert ids(claim(backend)) == [left]
    assert backend.queue.stats(QUEUE).delayed == 0
    assert set(backend.queue.missing(QUEUE, [waiting, later, left])) == {waiting, later}


def test_canceling_running_work_is_told_to_its_worker(backend: Backend) -> None:
    (wanted,) = put(backend, message())
    (claimed,) = claim(backend)
    listener = backend.queue.listen_canceled()
    listener.get(0.01)

    backend.queue.cancel(QUEUE, [wanted])

    assert listener.get(5) == wanted
    assert backend.queue.heartbeat(QUEUE, "w1", [claimed]).canceled == [wanted]
    listener.close()


def test_canceled_work_does_not_come_back_however_it_ends(backend: Backend) -> None:
    for outcome in (Outcome.DONE, Outcome.RETRY, Outcome.RELEASE):
        (wanted,) = put(backend, message())
        (claimed,) = claim(backend)
        backend.queue.cancel(QUEUE, [wanted])
        finish(backend, claimed, outcome)
        assert claim(backend) == []
        assert backend.queue.missing(QUEUE, [wanted]) == [wanted]


def test_canceled_work_of_a_dead_worker_does_not_come_back(backend: Backend) -> None:
    (wanted,) = put(backend, message())
    claim(backend)
    backend.queue.cancel(QUEUE, [wanted])

    backend.queue.release_worker(QUEUE, "w1", crashed=True)

    assert backend.queue.missing(QUEUE, [wanted]) == [wanted]


def test_the_claims_that_are_out_are_known_by_their_fences(backend: Backend) -> None:
    put(backend, message("a"), message("a"), message(), message(delay=60))
    first, second = claim(backend)

    assert backend.queue.list_leases(QUEUE) == {first.agent_id: first.fence, second.agent_id: second.fence}
    finish(backend, first)
    assert backend.queue.list_leases(QUEUE) == {second.agent_id: second.fence}


def test_who_holds_a_claim_is_told_once_to_stop(backend: Backend) -> None:
    (wanted,) = put(backend, message())
    (claimed,) = claim(backend)
    listener = backend.queue.listen_canceled()
    listener.get(0.01)

    assert backend.queue.request_stop(QUEUE, {wanted: claimed.fence}) == 1
    assert backend.queue.request_stop(QUEUE, {wanted: claimed.fence}) == 0

    assert (listener.get(5), listener.get(0.01)) == (wanted, None)
    assert backend.queue.heartbeat(QUEUE, "w1", [claimed]).canceled == [wanted]
    listener.close()


def test_a_later_claim_of_the_same_work_is_not_stopped(backend: Backend) -> None:
    (wanted,) = put(backend, message("a"))
    (old,) = claim(backend)
    finish(backend, old, Outcome.RETRY)
    (new,) = claim(backend)

    assert backend.queue.request_stop(QUEUE, {wanted: old.fence}) == 0

    assert backend.queue.heartbeat(QUEUE, "w1", [new]).canceled == []


def test_stopping_what_has_been_given_back_leaves_nothing_behind(backend: Backend) -> None:
    wish = message("a")
    put(backend, wish)
    (old,) = claim(backend)
    finish(backend, old)

    assert backend.queue.request_stop(QUEUE, {wish.agent_id: old.fence}) == 0

    put(backend, wish)
    (new,) = claim(backend)
    assert backend.queue.heartbeat(QUEUE, "w1", [new]).canceled == []


def test_what_is_to_run_again_does_so_after_a_stop(backend: Backend) -> None:
    wish = message("a")
    put(backend, wish)
    (claimed,) = claim(backend)
    put(backend, Message(wish.agent_id, wish.partition, again=True))

    backend.queue.request_stop(QUEUE, {wish.agent_id: claimed.fence})
    finish(backend, claimed)

    assert ids(claim(backend)) == [wish.agent_id]


def test_a_retry_of_what_still_runs_waits_for_its_end(backend: Backend) -> None:
    wish = message("a")
    put(backend, wish)
    (claimed,) = claim(backend)
    backend.queue.cancel(QUEUE, [wish.agent_id])

    again = Message(wish.agent_id, wish.partition, again=True)
    assert backend.queue.enqueue(QUEUE, [again]) == 1
    assert claim(backend) == []
    finish(backend, claimed)

    (new,) = claim(backend)
    assert new.agent_id == wish.agent_id
    assert new.fence > claimed.fence


def test_a_given_sequence_decides_the_place_in_the_partition(backend: Backend) -> None:
    (newer,) = put(backend, message("a"))
    older = Message(uuid7(), "k:a", sequence=1)
    put(backend, older)

    (first,) = claim(backend)
    finish(backend, first)

    assert first.agent_id == older.agent_id
    assert ids(claim(backend)) == [newer]


def test_the_dead_are_counted_until_they_are_queued_again(backend: Backend) -> None:
    dead = message()
    put(backend, dead)
    (claimed,) = claim(backend)
    finish(backend, claimed, Outcome.DEAD)
    assert backend.queue.stats(QUEUE).dead == 1

    put(backend, dead)

    assert backend.queue.stats(QUEUE).dead == 0
    assert ids(claim(backend)) == [dead.agent_id]


def test_queues_know_nothing_of_each_other(backend: Backend) -> None:
    put(backend, message("a"))
    backend.queue.enqueue("other", [message("a")])

    assert len(claim(backend)) == 1
    assert len(backend.queue.ack_and_claim("other", "w1", limit=5).claimed) == 1
    backend.queue.ack_and_claim("other", "w1")


def test_waiting_ends_when_work_arrives(backend: Backend) -> None:
    woken: list[bool] = []
    sleeper = threading.Thread(target=lambda: woken.append(backend.queue.wait([QUEUE, "other"], 5)))
    sleeper.start()

    put(backend, message())
    sleeper.join(10)

    assert woken == [True]


def test_waiting_ends_without_work_after_its_time(backend: Backend) -> None:
    assert backend.queue.wait([QUEUE], 0.05) is False


def test_the_end_of_watched_work_is_told(backend: Backend) -> None:
    wanted, other = put(backend, message(), message())
    listener = backend.queue.listen_finished()
    listener.watch(wanted)
    listener.get(0.05)
    first, second = claim(backend)

    finish(backend, second)
    finish(backend, first)

    assert listener.get(5) == wanted
    assert other == second.agent_id
    listener.close()


def worker_info(name: str = "w1", **values: float) -> WorkerInfo:
    return WorkerInfo(name, "host", 1, [QUEUE], 10, False, **{"started": 1_700_000_000.0, "running": 3, **values})  # type: ignore[arg-type]


def test_workers_are_announced_and_retired(backend: Backend) -> None:
    worker = worker_info()

    backend.queue.register_worker(worker)
    (seen,) = backend.queue.workers()
    assert replace(seen, last_beat=0.0) == worker
    backend.queue.deregister_worker("w1")
    assert backend.queue.workers() == []


@pytest.mark.parametrize("clock", [0.0, 4_000_000_000.0])
def test_a_heartbeat_is_dated_by_the_queue_whatever_the_workers_clock_says(backend: Backend, clock: float) -> None:
    backend.queue.register_worker(worker_info(last_beat=clock))

    reading = backend.queue.workers()

    assert [abs(reading.now - worker.last_beat) < 60 for worker in reading] == [True]


def test_a_reader_whose_clock_is_ahead_sees_and_keeps_all_workers(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.queue.register_worker(worker_info())
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3_600)

    for _ in range(2):
        reading = backend.queue.workers()
        assert [worker.id for worker in reading] == ["w1"]
        assert reading.now - reading[0].last_beat < conf.LEASE


def test_counters_add_up_by_name_and_field(backend: Backend) -> None:
    backend.queue.increment_counters({"one": {"a": 1, "b": 0.5}, "two": {"a": 1}}, seconds=60)
    backend.queue.increment_counters({"one": {"a": 2}}, seconds=60)

    assert backend.queue.read_counters(["two", "one", "nothing"]) == [{"a": 1}, {"a": 3, "b": 0.5}, {}]


def test_one_of_several_leads_a_duty(backend: Backend) -> None:
    assert backend.queue.try_acquire_leadership("tests", "a", 60)
    assert backend.queue.try_acquire_leadership("tests", "a", 60)
    assert not backend.queue.try_acquire_leadership("tests", "b", 60)


def test_four_workers_share_a_thousand_activities_without_doing_one_twice(backend: Backend) -> None:
    wanted = put(backend, *[message(f"k{n % 97}" if n % 2 else "") for n in range(1000)])
    done: list[UUID] = []

    def work(worker: str) -> None:
        acks: list[Ack] = []
        while True:
            claimed = backend.queue.ack_and_claim(QUEUE, worker, acks, limit=7).claimed
            if not claimed and not acks and not backend.queue.stats(QUEUE).pending:
                return
            acks = [Ack(c, Outcome.DONE) for c in claimed]
            done.extend(ids(claimed))

    threads = [threading.Thread(target=work, args=[f"w{n}"]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(done) == sorted(wanted)
    stats = backend.queue.stats(QUEUE)
    assert (stats.pending, stats.leased, stats.ready, stats.suspects) == (0, 0, 0, 0)
