"""The claimer: acknowledges finished claims and claims activities for free slots, in one round trip.

The claimer thread acknowledges, and claims due activities. The waiter thread blocks in `Queue.wait`, so that an
acknowledgment never waits for it, and claims as soon as it is notified. The threads take turns.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from uuid import UUID

from ..background import start_critical_thread
from ..exceptions import QueueUnavailable
from ..queues import Ack, Claim, Claims, DatabaseState, Limit, Outcome, Queue
from ..queues.base import MAX_WAIT
from .queue_shares import QueueShares

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.05  # seconds between two attempts while the queue is unavailable, doubled up to the maximum
MAX_PAUSE = 2.0
FIRST_RECOVERY_PAUSE = 0.2  # seconds between two polls while the queue is being restored, doubled up to the maximum
MAX_RECOVERY_PAUSE = 3.0
MAX_SPREAD = 0.1  # fraction of a pause, common to all workers, by which each extends it at random
POLL_INTERVAL = 0.5  # seconds between two polls of a process that the queue does not notify
EARLY_POLL_FRACTION = 8  # 1/8 of the slots, freed since the last round trip, justify a round trip before it is due


def jittered(pause: float) -> float:
    """Return a random time between half of a pause and all of it, so that many workers do not act at once."""
    return random.uniform(pause / 2, pause)


def recovery_pause(refusals: int) -> float:
    """Return the seconds until the next poll of a queue that is being restored, after this number of refusals."""
    return jittered(min(MAX_RECOVERY_PAUSE, FIRST_RECOVERY_PAUSE * 2.0 ** min(refusals - 1, 10)))


class HeldClaim:
    """A claim of this process, and the time of the last confirmed extension of its lease (monotonic seconds)."""

    __slots__ = ("claim", "extended")

    def __init__(self, claim: Claim, extended: float) -> None:
        self.claim = claim
        self.extended = extended


class Claimer:
    """Up to `capacity` claims of a worker. Each new claim is passed to `on_claim`, in a thread of the claimer.

    Queues are served in order, or by `weights`. With `burst`, the claimer stops when nothing is left to claim; it also
    stops after `max_claims` claims. With `only`, it claims this activity and no other. `on_end` is called when it has
    stopped and every claim is acknowledged, `on_needs_recovery` while the queue has lost its data, `on_limits` with a
    queue and the revision of its limits before each batch of claims.
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
        weights: Sequence[int] = (),
        quarantine: bool = False,
        burst: bool = False,
        max_claims: int | None = None,
        only: UUID | None = None,
        rows: DatabaseState = DatabaseState.NONE,
        on_needs_recovery: Callable[[], None] = lambda: None,
        on_limits: Callable[[str, str], None] = lambda queue, revision: None,
    ) -> None:
        self.held: dict[UUID, HeldClaim] = {}
        # Held while claims are acknowledged, and while a heartbeat sends the held claims: a heartbeat that arrives
        # after the end of a claim could restore that claim, without a handler, in the pause after a loss of data.
        self.release_lock = threading.Lock()
        self._queue = queue
        self._names = names
        self._shares = QueueShares(names, weights)
        self._worker = worker
        self._capacity = capacity
        self._on_claim = on_claim
        self._on_end = on_end
        self._quarantine = quarantine
        self._burst = burst
        self._claims_left = max_claims if only is None else 1
        self._only = only
        self._rows = rows
        self._on_needs_recovery = on_needs_recovery
        self._on_limits = on_limits
        self._acks: list[Ack] = []
        self._deferred_claims: dict[UUID, Claim] = {}  # claims that wait for the end of a handler of an older claim
        # Claims whose handler has not ended; `held` also contains claims whose end is being written.
        self._busy_slots: set[UUID] = set()
        self._freed = 0
        self._changed = threading.Condition()
        self._turn_lock = threading.Lock()
        self._stopping = False
        self._waiting = False
        self._wake_requested = False
        self._sleeps_until = 0.0
        # Queues in which a failed round trip may have claimed activities that this process does not know.
        self._unanswered: set[str] = set()
        self.has_tried = False
        """Whether the queue was asked for a claim once, or did not reply."""
        self._failures = 0  # consecutive round trips without a reply
        self._refusals = 0  # consecutive polls in which a queue was waiting for its recovery
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the threads."""
        start_critical_thread("agentexec-claimer", self._run)
        if not self._burst and not self._polls:
            start_critical_thread("agentexec-waiter", self._wait_for_notifications)

    def free(self, claim: Claim) -> None:
        """Free the slot of a claim while its end is being written. Callable from any thread."""
        if self._quarantine:
            return  # a crash of the next suspect must not prevent that this end is written
        with self._changed:
            if claim.agent_id in self._deferred_claims:
                return  # a deferred claim of the same activity takes the slot
            self._busy_slots.discard(claim.agent_id)
            was_enough = self._freed_enough_for_early_poll
            self._freed += 1
            if self._freed_enough_for_early_poll and not was_enough:
                self._changed.notify_all()

    def ack(self, claim: Claim, outcome: Outcome, delay: float = 0.0, limits: tuple[Limit, ...] = ()) -> None:
        """Acknowledge a claim with the next round trip. Callable from any thread."""
        with self._changed:
            waiting = self._deferred_claims.get(claim.agent_id)
            if waiting is None or waiting.fence == claim.fence:
                self._busy_slots.discard(claim.agent_id)
            self._deferred_claims.pop(claim.agent_id, None)
            self._acks.append(Ack(claim, outcome, delay, limits))
            if len(self._acks) == 1:  # otherwise the thread has been notified already
                self._changed.notify_all()
        if waiting is not None and waiting.fence != claim.fence:
            self._on_claim(waiting)

    def stop(self) -> None:
        """Claim nothing more, and end when every claim is acknowledged."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    @property
    def reached_limit(self) -> bool:
        """Whether `max_claims` claims have been made."""
        return self._claims_left == 0

    @property
    def _polls(self) -> bool:
        # Notifications are for workers that claim anything.
        return self._quarantine or self._only is not None

    @property
    def _freed_enough_for_early_poll(self) -> bool:
        # A few free slots can wait for the next acknowledgment; many justify a round trip.
        return self._freed * EARLY_POLL_FRACTION >= self._capacity

    def join(self, timeout: float) -> bool:
        """Wait for the end; return False after `timeout` seconds."""
        return self._ended.wait(timeout)

    def _run(self) -> None:
        while True:
            pause = self._take_turn()
            with self._turn_lock:  # the waiter thread may be claiming at this moment
                if self._stopping and not self.held:
                    break
            if pause > 0:
                self._sleep()
        self._ended.set()
        self._on_end()

    def _take_turn(self) -> float:
        """Acknowledge and claim; return the seconds until the next round trip."""
        with self._turn_lock:
            acks, free = self._due_work()
            pause = self._ack_and_claim_all(acks, free)
            with self._changed:
                self._sleeps_until = time.monotonic() + pause
            self.has_tried = True
        return pause

    def _due_work(self) -> tuple[list[Ack], int]:
        with self._changed:
            acks, self._acks = self._acks, []
            self._wake_requested = False
            self._freed = 0
            return acks, self._free_slots(len(acks))

    def _free_slots(self, acks: int) -> int:
        """Return the number of claims that may be made together with this number of acknowledgments."""
        if self._stopping:
            return 0
        # If the database is slow, the number of unwritten ends must remain bounded.
        unwritten = len(self.held) - len(self._busy_slots) - acks
        free = max(0, self._capacity - len(self._busy_slots) - max(0, unwritten - self._capacity))
        return free if self._claims_left is None else min(free, self._claims_left)

    def _ack_and_claim_all(self, acks: list[Ack], free: int) -> float:
        """Make one round trip to every queue, and return the seconds until the next."""
        by_queue: dict[str, list[Ack]] = defaultdict(list)
        for ack in acks:
            by_queue[ack.claim.queue].append(ack)
        pause = POLL_INTERVAL if self._polls and not self._burst else MAX_WAIT
        more, claimed, paused, recovering = False, 0, False, False
        shares, unused, visits = self._shares.of(free), 0, deque(dict.fromkeys([*self._names, *by_queue]))
        visited: set[str] = set()
        while visits:
            name = visits.popleft()
            limit = min(free - claimed, shares.get(name, 0) + unused)
            if name in visited and limit <= 0:
                continue
            claims = self._ack_and_claim(name, by_queue.pop(name, []), limit)
            if claims is None:
                self._keep_acks(by_queue)
                return self._pause_after_failure()
            claimed += len(claims.claimed)
            unused += shares.get(name, 0) - len(claims.claimed)
            shares[name] = 0
            if claims.waiting and limit == len(claims.claimed) and name not in visited:
                visits.append(name)  # may use slots that other queues leave
            visited.add(name)
            paused, recovering = paused or claims.paused, recovering or claims.needs_recovery
            more = more or (claims.waiting and limit > len(claims.claimed))
            if claims.next_due is not None:
                due = max(claims.next_due, 0.001)
                pause = min(pause, due + random.uniform(0, MAX_SPREAD * due) if claims.paused else due)
        self._failures = 0
        self._refusals = self._refusals + 1 if recovering else 0
        if recovering:  # the end of the recovery notifies waiting workers
            pause = min(pause, recovery_pause(self._refusals))
        idle = free > 0 and not claimed and not paused
        return self._after(idle, 0.0 if more else pause)

    def _after(self, idle: bool, pause: float) -> float:
        nothing_left = self._burst and idle and not self.held and pause >= MAX_WAIT
        if self._claims_left == 0 or nothing_left:
            self.stop()
            return 0.0 if not self.held else pause
        return pause

    def _ack_and_claim(self, name: str, acks: list[Ack], limit: int) -> Claims | None:
        """Make one round trip; return None if the queue did not reply (the acknowledgments are kept)."""
        try:
            if self._unanswered:
                self._release_unknown_claims()
            started = time.monotonic()
            with self.release_lock if acks else nullcontext():
                claims = self._queue.ack_and_claim(
                    name, self._worker, acks, limit, quarantine=self._quarantine, rows=self._rows, only=self._only
                )
                self._remove_held(acks)
        except QueueUnavailable as error:
            if limit > 0:  # otherwise it cannot have claimed anything
                self._unanswered.add(name)
            if not self._failures:
                logger.warning("%s Running activities continue; trying again.", error)
            with self._changed:
                self._acks = acks + self._acks
            return None
        if claims.needs_recovery:
            self._on_needs_recovery()
        if claims.claimed:
            self._on_limits(name, claims.limits_revision)
        for claim in claims.claimed:
            self._take(claim, started)
        return claims

    def _remove_held(self, acks: list[Ack]) -> None:
        for ack in acks:
            held = self.held.get(ack.claim.agent_id)
            if held is not None and held.claim.fence == ack.claim.fence:
                del self.held[ack.claim.agent_id]

    def _take(self, claim: Claim, started: float) -> None:
        if self._claims_left is not None:
            self._claims_left -= 1
        with self._changed:
            ended = any(ack.claim.agent_id == claim.agent_id for ack in self._acks)
            is_unwinding = claim.agent_id in self.held and not ended
            self.held[claim.agent_id] = HeldClaim(claim, started)
            self._busy_slots.add(claim.agent_id)
            if is_unwinding:
                # An earlier claim of the activity was lost, and its handler has not ended yet: do not run two at
                # once. Meanwhile the lease of the new claim keeps the place in the partition.
                self._deferred_claims[claim.agent_id] = claim
                return
        self._on_claim(claim)

    def _keep_acks(self, by_queue: dict[str, list[Ack]]) -> None:
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
        """Sleep until there is work: an acknowledgment, free slots, a due time."""
        with self._changed:
            self._waiting = self._free_slots(0) > 0
            if self._waiting:
                self._changed.notify_all()
            # A stop between the last round trip and this point did not notify the condition.
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

    def _wait_for_notifications(self) -> None:
        """Block in `Queue.wait` while the claimer thread sleeps with free slots."""
        while not self._ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended.is_set(), timeout=1.0)
                if not self._waiting:
                    continue
            try:
                is_notified = self._queue.wait(self._names, MAX_WAIT)
            except QueueUnavailable:
                is_notified = True  # the round trip fails, too, and pauses
                time.sleep(FIRST_PAUSE)
            if is_notified:
                self._claim_in_waiter()

    def _claim_in_waiter(self) -> None:
        """Claim in the waiter thread: waking the claimer thread would double the time until a handler starts."""
        pause = self._take_turn()
        with self._changed:
            self._waiting = self._waiting and self._free_slots(0) > 0
            self._wake_requested = pause <= 0 or self._stopping
            self._changed.notify_all()
