"""The process's line to the queue: claims while there are free slots, and acknowledges, in one round trip.

One thread acknowledges, and claims what comes due; a second one sits in the queue's blocking wait, so that an
acknowledgment never has to wait for it, and claims as soon as it is called. They take turns.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from uuid import UUID

from ..exceptions import QueueUnavailable
from ..queues import Ack, Claim, Claims, DatabaseState, Outcome, Queue
from ..queues.base import MAX_WAIT
from .critical_threads import start_critical_thread

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.05  # seconds between two tries while the queue is away, doubled up to the longest
MAX_PAUSE = 2.0
FIRST_REFILL_PAUSE = 0.2  # seconds between two looks while a refill is pending, doubled up to the longest
MAX_REFILL_PAUSE = 3.0
HERD_SPREAD = 0.1  # part of a pause that ends for all workers at once by which they are spread over time
SUSPECTS_INTERVAL = 0.5  # seconds between two looks of a quarantine process, which no call of the queue is meant for
EARLY_POLL_FRACTION = 8  # one part in so many of the slots, freed at once, is worth an exchange of its own


def jittered(pause: float) -> float:
    """Return a random time of between half a pause and all of it, so that many workers do not act at once."""
    return random.uniform(pause / 2, pause)


def refill_pause(refusals: int) -> float:
    """Return the seconds after which to ask again, when a queue that waits for its refill has refused so often."""
    return jittered(min(MAX_REFILL_PAUSE, FIRST_REFILL_PAUSE * 2.0 ** min(refusals - 1, 10)))


class HeldClaim:
    """A claim that this process has, and since when its lease is known to be extended (monotonic seconds)."""

    __slots__ = ("claim", "extended")

    def __init__(self, claim: Claim, extended: float) -> None:
        self.claim = claim
        self.extended = extended


class Claimer:
    """Keeps up to `capacity` claims; gives each new one to `on_claim`, in its own thread.

    With `burst` it stops by itself when nothing is left to claim; after `max_claims` claims it stops, too.
    `on_end` is called when it has stopped and everything is acknowledged, `on_needs_refill` while the queue has
    lost its data.
    """

    def __init__(
        self,
        queue: Queue,
        names: Sequence[str],
        worker: str,
        capacity: int,
        *,
        on_claim: Callable[[Claim], None],
        on_end: Callable[[], None],
        quarantine: bool = False,
        burst: bool = False,
        max_claims: int | None = None,
        rows: DatabaseState = DatabaseState.NONE,
        on_needs_refill: Callable[[], None] = lambda: None,
    ) -> None:
        self.held: dict[UUID, HeldClaim] = {}
        # Taken while claims are given back, and while a heartbeat says which are held: a beat that came after the end
        # of a claim it speaks of could, in the pause after a loss of data, take that claim back for nobody.
        self.giving_back = threading.Lock()
        self._queue = queue
        self._names = names
        self._worker = worker
        self._capacity = capacity
        self._on_claim = on_claim
        self._on_end = on_end
        self._quarantine = quarantine
        self._burst = burst
        self._claims_left = max_claims
        self._rows = rows
        self._on_needs_refill = on_needs_refill
        self._acks: list[Ack] = []
        self._deferred_claims: dict[UUID, Claim] = {}  # claims that wait for the end of an older one's handler
        # Claims whose handler has not ended; fewer than `held`, whose ends are still being written.
        self._busy_slots: set[UUID] = set()
        self._freed = 0
        self._changed = threading.Condition()
        self._turn_lock = threading.Lock()
        self._stopping = False
        self._waiting = False
        self._wake_requested = False
        self._sleeps_until = 0.0
        # Queues in which a round trip that failed may have claimed what this process does not know.
        self._unanswered: set[str] = set()
        self._failures = 0  # exchanges without an answer, in a row
        self._refusals = 0  # turns in which a queue was waiting for its refill, in a row
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the threads."""
        start_critical_thread("agentexec-dispatcher", self._run)
        if not self._burst and not self._quarantine:
            start_critical_thread("agentexec-waiter", self._wait_for_calls)

    def free(self, claim: Claim) -> None:
        """Let the slot of a claim be filled again while its end is being written. Callable from any thread."""
        if self._quarantine:
            return  # the next suspect must not take this one's end down
        with self._changed:
            if claim.agent_id in self._deferred_claims:
                return  # the slot stays taken, by the claim that waits for this one's end
            self._busy_slots.discard(claim.agent_id)
            was_enough = self._freed_enough_for_early_poll
            self._freed += 1
            if self._freed_enough_for_early_poll and not was_enough:
                self._changed.notify_all()

    def ack(self, claim: Claim, outcome: Outcome, delay: float = 0.0) -> None:
        """Give a claim back; sent with the next exchange. Callable from any thread."""
        with self._changed:
            waiting = self._deferred_claims.get(claim.agent_id)
            if waiting is None or waiting.fence == claim.fence:
                self._busy_slots.discard(claim.agent_id)
            self._deferred_claims.pop(claim.agent_id, None)
            self._acks.append(Ack(claim, outcome, delay))
            if len(self._acks) == 1:  # else the thread has been called already
                self._changed.notify_all()
        if waiting is not None and waiting.fence != claim.fence:
            self._on_claim(waiting)

    def stop(self) -> None:
        """Claim nothing more; end when every claim is acknowledged."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    @property
    def reached_limit(self) -> bool:
        """Whether it has made all the claims it may make."""
        return self._claims_left == 0

    @property
    def _freed_enough_for_early_poll(self) -> bool:
        # A few free slots can wait for the next acknowledgment; many at once are worth a round trip.
        return self._freed * EARLY_POLL_FRACTION >= self._capacity

    def join(self, timeout: float) -> bool:
        """Wait for the end; False after `timeout` seconds."""
        return self._ended.wait(timeout)

    def _run(self) -> None:
        while True:
            pause = self._take_turn()
            with self._turn_lock:  # what the other thread may be claiming just now counts
                if self._stopping and not self.held:
                    break
            if pause > 0:
                self._sleep()
        self._ended.set()
        self._on_end()

    def _take_turn(self) -> float:
        """Acknowledge and claim; return the seconds until it is worth doing again."""
        with self._turn_lock:
            acks, free = self._due_work()
            pause = self._ack_and_claim_all(acks, free)
            with self._changed:
                self._sleeps_until = time.monotonic() + pause
        return pause

    def _due_work(self) -> tuple[list[Ack], int]:
        with self._changed:
            acks, self._acks = self._acks, []
            self._wake_requested = False
            self._freed = 0
            return acks, self._free_slots(len(acks))

    def _free_slots(self, acks: int) -> int:
        """Return how many claims may be made, if so many are given back with them."""
        if self._stopping:
            return 0
        # Ends that the database is slow to take must not pile up without bound.
        unwritten = len(self.held) - len(self._busy_slots) - acks
        free = max(0, self._capacity - len(self._busy_slots) - max(0, unwritten - self._capacity))
        return free if self._claims_left is None else min(free, self._claims_left)

    def _ack_and_claim_all(self, acks: list[Ack], free: int) -> float:
        """Talk to every queue once, and return the seconds until it is worth doing again."""
        by_queue: dict[str, list[Ack]] = defaultdict(list)
        for ack in acks:
            by_queue[ack.claim.queue].append(ack)
        pause = SUSPECTS_INTERVAL if self._quarantine and not self._burst else MAX_WAIT
        more, claimed, paused, refilling = False, 0, False, False
        for name in dict.fromkeys([*self._names, *by_queue]):
            limit = free - claimed if name in self._names else 0
            claims = self._ack_and_claim(name, by_queue.pop(name, []), limit)
            if claims is None:
                self._hand_back(by_queue)
                return self._pause_after_failure()
            claimed += len(claims.claimed)
            paused, refilling = paused or claims.paused, refilling or claims.needs_refill
            more = more or (claims.waiting and limit > len(claims.claimed))
            if claims.next_due is not None:
                due = max(claims.next_due, 0.001)
                pause = min(pause, due + random.uniform(0, HERD_SPREAD * due) if claims.paused else due)
        self._failures = 0
        self._refusals = self._refusals + 1 if refilling else 0
        if refilling:  # the end of the refill wakes those that wait for calls
            pause = min(pause, refill_pause(self._refusals))
        idle = free > 0 and not claimed and not paused
        return self._after(idle, 0.0 if more else pause)

    def _after(self, idle: bool, pause: float) -> float:
        nothing_left = self._burst and idle and not self.held and pause >= MAX_WAIT
        if self._claims_left == 0 or nothing_left:
            self.stop()
            return 0.0 if not self.held else pause
        return pause

    def _ack_and_claim(self, name: str, acks: list[Ack], limit: int) -> Claims | None:
        """Do one round trip; None if the queue did not answer (the acknowledgments are kept)."""
        try:
            if self._unanswered:
                self._release_unknown_claims()
            started = time.monotonic()
            with self.giving_back if acks else nullcontext():
                claims = self._queue.ack_and_claim(
                    name, self._worker, acks, limit, quarantine=self._quarantine, rows=self._rows
                )
                self._forget(acks)
        except QueueUnavailable as error:
            if limit > 0:  # else it has claimed nothing
                self._unanswered.add(name)
            if not self._failures:
                logger.warning("%s Running activities go on; trying again.", error)
            with self._changed:
                self._acks = acks + self._acks
            return None
        if claims.needs_refill:
            self._on_needs_refill()
        for claim in claims.claimed:
            self._take(claim, started)
        return claims

    def _forget(self, acks: list[Ack]) -> None:
        for ack in acks:
            held = self.held.get(ack.claim.agent_id)
            if held is not None and held.claim.fence == ack.claim.fence:
                del self.held[ack.claim.agent_id]

    def _take(self, claim: Claim, started: float) -> None:
        if self._claims_left is not None:
            self._claims_left -= 1
        with self._changed:
            ended = any(ack.claim.agent_id == claim.agent_id for ack in self._acks)
            unwinding = claim.agent_id in self.held and not ended
            self.held[claim.agent_id] = HeldClaim(claim, started)
            self._busy_slots.add(claim.agent_id)
            if unwinding:
                # An earlier claim of it was lost, and its handler has not given in yet: not two at once. The new
                # claim keeps its place in the partition meanwhile, by its lease.
                self._deferred_claims[claim.agent_id] = claim
                return
        self._on_claim(claim)

    def _hand_back(self, by_queue: dict[str, list[Ack]]) -> None:
        with self._changed:
            self._acks = [ack for acks in by_queue.values() for ack in acks] + self._acks

    def _pause_after_failure(self) -> float:
        pause = jittered(min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10)))
        self._failures += 1
        time.sleep(pause)
        return 0.0

    def _release_unknown_claims(self) -> None:
        keep = [held.claim for held in self.held.values()]
        for name in sorted(self._unanswered):
            own = [claim for claim in keep if claim.queue == name]
            self._queue.release_worker(name, self._worker, keep=own, crashed=False)
            self._unanswered.discard(name)

    def _sleep(self) -> None:
        """Sleep until something is to be done: an acknowledgment, free slots, a due time."""
        with self._changed:
            self._waiting = self._free_slots(0) > 0
            if self._waiting:
                self._changed.notify_all()
            # What was said between the last turn and here needs no notice to be heard.
            was_stopping = self._stopping and bool(self.held)
            while not (
                self._acks
                or self._wake_requested
                or self._freed_enough_for_early_poll
                or self._stopping is not was_stopping
            ):
                left = self._sleeps_until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._waiting = False

    def _wait_for_calls(self) -> None:
        """Sit in the queue's blocking wait whenever the other thread sleeps with free slots."""
        while not self._ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended.is_set(), timeout=1.0)
                if not self._waiting:
                    continue
            try:
                called = self._queue.wait(self._names, MAX_WAIT)
            except QueueUnavailable:
                called = True  # the turn finds out, too, and pauses
                time.sleep(FIRST_PAUSE)
            if called:
                self._answer_call()

    def _answer_call(self) -> None:
        """Claim in this thread: to wake the other one for it would double the time until a handler starts."""
        pause = self._take_turn()
        with self._changed:
            self._waiting = self._waiting and self._free_slots(0) > 0
            self._wake_requested = pause <= 0 or self._stopping
            self._changed.notify_all()
