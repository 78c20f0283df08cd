"""The claimer against a queue that loses replies or fails, and the critical threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from django_agentexec import QueueUnavailable
from django_agentexec.ids import uuid7
from django_agentexec.queues import Ack, Claim, Claims, HeartbeatReply, Message, Outcome, WorkerInfo
from django_agentexec.queues.memory import MemoryQueue
from django_agentexec.worker.claimer import MAX_RECOVERY_PAUSE, Claimer
from tests.support.pool_process import until
from tests.support.stepped_worker import SleeplessClaimer, SteppedClaimer, SteppedHeartbeat

QUEUE = "default"


class LossyQueue(MemoryQueue):
    """Loses the replies of the next `lose` round trips, after they took effect."""

    lose = 0

    def ack_and_claim(self, *arguments: Any, **options: Any) -> Claims:
        claims = super().ack_and_claim(*arguments, **options)
        if self.lose:
            self.lose -= 1
            raise QueueUnavailable("The reply was lost.")
        return claims


@pytest.fixture
def queue() -> LossyQueue:
    return LossyQueue()


@pytest.fixture
def claims() -> list[Claim]:
    return []


@pytest.fixture
def dispatch(queue: LossyQueue, claims: list[Claim]) -> Iterator[Callable[..., Claimer]]:
    started: list[Claimer] = []

    def start(kind: type[Claimer] = Claimer, **options: Any) -> Claimer:
        claimer = kind(queue, [QUEUE], "w1", 2, on_claim=claims.append, on_end=lambda: None, **options)
        claimer.start()
        started.append(claimer)
        return claimer

    yield start
    for claimer in started:
        claimer.stop()
        for held in list(claimer.held.values()):
            claimer.ack(held.claim, Outcome.DONE)
        assert claimer.join(10)


def put(queue: MemoryQueue) -> Message:
    agent_id = uuid7()
    message = Message(agent_id, f"i:{agent_id}")
    queue.enqueue(QUEUE, [message])
    return message


def test_a_claim_whose_reply_was_lost_is_made_again_uncharged(
    queue: LossyQueue, dispatch: Callable[..., Any], claims: list[Claim]
) -> None:
    queue.lose = 2
    message = put(queue)
    dispatch()

    until(lambda: claims, "the claim", timeout=10)
    assert [(c.agent_id, c.crashes) for c in claims] == [(message.agent_id, 0)]
    assert queue.stats(QUEUE).leased == 1


def test_only_an_exchange_that_may_have_claimed_is_followed_by_a_release(
    queue: LossyQueue, dispatch: Callable[..., Any], claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[tuple[str, list[Claim]]] = []

    def release_worker(name: str, worker: str, *, keep: Sequence[Claim], crashed: bool) -> int:
        released.append((name, list(keep)))
        return MemoryQueue.release_worker(queue, name, worker, keep=keep, crashed=crashed)

    monkeypatch.setattr(queue, "release_worker", release_worker)
    for _ in range(2):
        put(queue)
    claimer = dispatch(max_claims=2)
    until(lambda: len(claims) == 2, "the claims", timeout=10)
    queue.lose = 1

    claimer.ack(claims[0], Outcome.DONE)  # nothing more may be claimed with it

    until(lambda: len(claimer.held) == 1, "the end of the claim", timeout=10)
    assert released == []


def test_a_queue_that_waits_for_its_refill_is_asked_less_and_less(
    queue: LossyQueue, dispatch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        queue, "ack_and_claim", lambda *_, **__: Claims([], 25.0, False, paused=True, needs_recovery=True)
    )
    claimer = dispatch(SleeplessClaimer)

    until(lambda: len(claimer.pauses) > 30, "many looks", timeout=10)

    slept = list(claimer.pauses)
    assert max(slept) <= MAX_RECOVERY_PAUSE
    assert min(slept[10:20]) >= MAX_RECOVERY_PAUSE / 2 - 0.5
    assert len({round(pause, 3) for pause in slept[10:20]}) > 3  # many workers do not ask at the same time


def test_nobody_waits_for_work_while_ends_pile_up(
    queue: LossyQueue, dispatch: Callable[..., Any], claims: list[Claim]
) -> None:
    for _ in range(5):
        put(queue)
    claimer = dispatch(SteppedClaimer)
    for number in (2, 4):
        until(lambda number=number: len(claims) == number, f"{number} claims", timeout=10)
        for claimed in claims[number - 2 :]:
            claimer.free(claimed)

    # Twice the capacity is held, nothing runs: no more is claimed, and no call is waited for that would come at once.
    until(lambda: not claimer.is_waiting, "the end of the waiting", timeout=10)
    assert (claimer.free_slots, len(claims)) == (0, 4)


def test_a_quarantine_process_takes_no_call_that_is_meant_for_others(
    queue: LossyQueue, dispatch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "wait", lambda *_: pytest.fail("It waits for a call."))
    put(queue)
    dispatch(quarantine=True)
    suspect = uuid7()
    queue.enqueue(QUEUE, [Message(suspect, f"i:{suspect}", crashes=1)])

    until(lambda: queue.stats(QUEUE).leased == 1, "the claim of the suspect", timeout=10)


def test_a_reply_is_lost_that_ended_one_claim_and_made_another_of_the_same_work(
    queue: LossyQueue, dispatch: Callable[..., Any], claims: list[Claim]
) -> None:
    put(queue)
    claimer = dispatch()
    until(lambda: claims, "the first claim", timeout=10)
    queue.lose = 1

    claimer.ack(claims[0], Outcome.RETRY)

    until(lambda: len(claims) == 2, "the second claim", timeout=10)
    until(lambda: claimer.held, "its lease", timeout=10)
    (held,) = claimer.held.values()
    assert held.claim.fence == claims[1].fence
    assert queue.heartbeat(QUEUE, "w1", [held.claim]).lost == []


def test_what_is_claimed_anew_waits_for_the_end_of_its_lost_claim(
    queue: LossyQueue, dispatch: Callable[..., Any], claims: list[Claim]
) -> None:
    put(queue)
    claimer = dispatch()
    until(lambda: claims, "the first claim", timeout=10)

    queue.release_worker(QUEUE, "w1", crashed=False)  # lost, while its handler continues
    until(lambda: claimer.held[claims[0].agent_id].claim is not claims[0], "the second claim", timeout=10)
    assert len(claims) == 1
    claimer.ack(claims[0], Outcome.RELEASE)

    until(lambda: len(claims) == 2, "the claim after its end", timeout=10)
    assert claims[1].fence > claims[0].fence


def test_a_burst_keeps_to_its_number_of_claims(
    queue: LossyQueue, dispatch: Callable[..., Any], claims: list[Claim]
) -> None:
    for _ in range(3):
        put(queue)
    claimer = dispatch(max_claims=1)
    until(lambda: claims, "the claim", timeout=10)

    claimer.ack(claims[0], Outcome.DONE)

    assert claimer.join(10)
    assert claimer.reached_limit
    assert (len(claims), queue.stats(QUEUE).pending) == (1, 2)


class SlowQueue(LossyQueue):
    """Lets acknowledgments wait, and notes which claims each heartbeat speaks of."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledging, self.go_on = threading.Event(), threading.Event()
        self.beats: list[list[Claim]] = []

    def ack_and_claim(
        self, queue: str, worker: str, acks: Sequence[Ack] = (), *arguments: Any, **options: Any
    ) -> Claims:
        if acks:
            self.acknowledging.set()
            assert self.go_on.wait(10)
        return super().ack_and_claim(queue, worker, acks, *arguments, **options)

    def heartbeat(self, queue: str, worker: str, claims: Sequence[Claim]) -> HeartbeatReply:
        self.beats.append(list(claims))
        return super().heartbeat(queue, worker, claims)


def test_no_heartbeat_speaks_of_a_claim_that_was_given_back(claims: list[Claim]) -> None:
    queue = SlowQueue()
    put(queue)
    claimer = Claimer(queue, [QUEUE], "w1", 2, on_claim=claims.append, on_end=lambda: None)
    info = WorkerInfo("w1", "host", 1, [QUEUE], 2, False, 0.0)
    lease = SteppedHeartbeat(
        queue,
        info,
        claimer.held,
        claimer.release_lock,
        on_lost=lambda ids: None,
        on_canceled=lambda ids: None,
        on_beat=lambda: None,
    )
    claimer.start()
    until(lambda: claims, "the claim", timeout=10)
    lease.beat()
    claimer.ack(claims[0], Outcome.RETRY, 60)
    assert queue.acknowledging.wait(10)

    beating = threading.Thread(target=lease.beat)
    beating.start()
    beating.join(0.2)  # long enough to speak of it, if nothing keeps it from that
    queue.go_on.set()
    beating.join(10)

    assert queue.beats == [[claims[0]], []]
    claimer.stop()
    assert claimer.join(10)
