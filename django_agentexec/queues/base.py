"""The contract of a queue backend: where a waiting or claimed activity lives outside the database.

A queue holds ids, never contexts: the database row is the truth, and a queue that loses everything is
filled again from the rows. Every verb works on batches and is atomic per queue name. All verbs are
synchronous and safe to call from several threads. `tests/integration/test_queue_contract.py` is the
conformance suite that every backend must pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from .live import LiveStore
from .workers import WorkerInfo, WorkersReading

BEATS_PER_LEASE = 3
"""Heartbeats in the time of a lease: a worker may miss two, and a pause for all to beat need not be longer."""

MAX_WAIT = 5.0
"""Seconds that `Queue.wait` may be asked to block: after them, a worker looks by itself."""

EVICTING_POLICIES = frozenset({"allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-lrm"})
"""Policies of a full server that delete keys without a time limit, such as all of the queue's."""


@dataclass(frozen=True, slots=True)
class Message:
    """An activity on its way into a queue."""

    agent_id: UUID
    partition: str
    """The line it stands in; activities of one partition run one at a time. Must not hold a NUL.

    `i:` and the activity's own id is a line that nobody else may stand in, as for an activity without a lock key.
    """
    priority: int = 4
    """0 (first) to 9 (last)."""
    delay: float = 0.0
    """Seconds from now until it is due; the queue's own clock counts them."""
    sequence: int = 0
    """Place in its partition, in microseconds since 1970; 0 lets the queue append it at the end."""
    crashes: int = 0
    """Processes that died with it so far; from one on, only quarantine processes may claim it."""
    again: bool = False
    """Whether it must run once more even if it is being run right now (a manual retry)."""
    fence: int = 0
    """The fence of its row, which refuses smaller ones: the next claim gets a larger one."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one activity, until the lease ends."""

    agent_id: UUID
    fence: int
    """Larger than every fence given out before, over all activities of the queue."""
    crashes: int
    queue: str
    ticket: str = field(repr=False)
    """What the backend needs to restore this claim after a loss of data; opaque to the worker."""
    expired_leases: int = 0
    """Leases of this activity that ended although no pool reported the death of their worker.

    Refunded are those whose worker is heard from again; of them, four count as one.
    """


@dataclass(frozen=True, slots=True)
class Claims:
    """The answer to `exchange`."""

    claimed: list[Claim]
    next_due: float | None
    """Seconds until waiting could pay off (a delayed activity comes due, a pause ends); None: unknown."""
    waiting: bool
    """Whether more could have been claimed with a higher limit."""
    paused: bool = False
    """Whether nothing can be claimed at present, because the queue has lost data and is being restored."""
    needs_refill: bool = False
    """Whether it also waits for a refill, for 30 seconds at most."""


class Outcome(Enum):
    """How an attempt ended, as far as the queue is concerned."""

    DONE = "done"
    """It is over: forget it."""
    DEAD = "dead"
    """It is over, in error: forget it, but keep its id among the dead letters."""
    RETRY = "retry"
    """Run it again after `Ack.delay` seconds."""
    RELEASE = "release"
    """Put it back where it was; nothing happened."""


class DatabaseState(Enum):
    """What a worker found in the database when it started; it tells a new queue from one that lost its data."""

    NONE = "none"
    """Nothing is active."""
    WAITING = "waiting"
    """Some activities are queued, none is running."""
    RUNNING = "running"
    """Some activities are running."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The end of a claim. An acknowledgment with an outdated fence is ignored."""

    claim: Claim
    outcome: Outcome
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """The answer to `heartbeat`."""

    lost: list[UUID]
    """Claims that are not this worker's any more: stop, and write nothing."""
    canceled: list[UUID]
    """Claims whose activity was canceled: stop."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many activities of a queue are in which place right now."""

    ready: int
    """Partitions with an activity that could be claimed at once."""
    pending: int
    """Activities that wait for a slot or for their partition."""
    suspects: int
    """Partitions that wait for a quarantine process."""
    leased: int
    delayed: int
    dead: int


class Queue(ABC):
    """A queue backend. Flags tell what it can do; verbs raise `QueueUnavailable` if it cannot be reached."""

    crosses_processes: bool = True
    """Whether what one process enqueues can be claimed by another."""
    supports_delay: bool = True
    """Whether `Message.delay` is honoured."""
    supports_priority: bool = True
    """Whether `Message.priority` is honoured."""
    supports_partitions: bool = True
    """Whether activities of one partition run one at a time, in order."""
    supports_cancel: bool = True
    """Whether a running activity can be told to stop."""

    @abstractmethod
    def enqueue(self, queue: str, messages: Sequence[Message]) -> int:
        """Add what is not there yet, and return how many were. One round trip per 1,000 messages.

        Later claims of the queue get larger fences than each `Message.fence`.
        """

    @abstractmethod
    def ack_and_claim(
        self,
        queue: str,
        worker: str,
        acks: Sequence[Ack] = (),
        limit: int = 0,
        *,
        quarantine: bool = False,
        rows: DatabaseState = DatabaseState.NONE,
    ) -> Claims:
        """Acknowledge claims, then claim up to `limit` activities; one round trip.

        With `quarantine`, only activities that crashed a process are claimed; without, only others.
        A backend that finds that it has lost data gives no claim for a moment, in which live workers restore
        theirs by a heartbeat, and none before `end_refill`, so that what comes later does not overtake.
        """

    @abstractmethod
    def begin_refill(self, queue: str) -> str:
        """Return a token of the loss of data that a refill is about to heal, or "" if there is none."""

    @abstractmethod
    def end_refill(self, queue: str, token: str) -> None:
        """Take note that everything which the rows know is in the queue again, unless data was lost once more."""

    @abstractmethod
    def heartbeat(self, queue: str, worker: str, claims: Sequence[Claim]) -> HeartbeatReply:
        """Extend these claims by a lease; also promote due activities and put back those whose lease has ended.

        An ended lease is no crash, since its worker may be alive and out of reach. It is counted separately, and
        refunded when that worker sends a heartbeat or acknowledges the claim later.
        Before its first `exchange` a worker has nothing to say: then it may do nothing.
        """

    @abstractmethod
    def release_worker(self, queue: str, worker: str, *, keep: Sequence[Claim] | None = None, crashed: bool) -> int:
        """Put back all claims of `worker` except `keep`, charging a crash or not; return how many.

        A claim is kept by its fence: another claim of the same activity is put back. A worker that has missed an
        answer gives `keep`, if only an empty list; for a worker that has ended, its pool leaves it out.
        """

    @abstractmethod
    def cancel(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Remove waiting activities, and tell the workers of claimed ones to stop. Wakes who awaits them."""

    @abstractmethod
    def list_leases(self, queue: str) -> dict[UUID, int]:
        """Return the claims that are out: their fences, by activity. Read in pages, a round trip each."""

    @abstractmethod
    def stop(self, queue: str, claims: Mapping[UUID, int]) -> int:
        """Tell the workers of these claims (fences, by activity) to stop; return how many had not been told.

        Another claim of the same activity goes on, and what is to run again after this one's end does.
        """

    @abstractmethod
    def missing(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Return those that are neither waiting nor claimed."""

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Block until there may be something to claim; False after `timeout` seconds without a sign."""

    @abstractmethod
    def stats(self, queue: str) -> QueueStats:
        """Count a queue's activities by place."""

    @abstractmethod
    def listen_canceled(self) -> Listener:
        """Return a listener for the ids of running activities that are canceled."""

    @abstractmethod
    def listen_finished(self) -> Listener:
        """Return a listener for the ids of activities that ended; `watch` the ones you await."""

    @abstractmethod
    def register_worker(self, worker: WorkerInfo) -> None:
        """Note a heartbeat of a worker process, by the queue's clock; delete what has been silent for long."""

    @abstractmethod
    def deregister_worker(self, worker_id: str) -> None:
        """Forget a worker process."""

    @abstractmethod
    def workers(self) -> WorkersReading:
        """Return the worker processes that were heard from in the last 5 minutes by the queue's clock.

        Entries that cannot be read are skipped and named.
        """

    @abstractmethod
    def try_acquire_leadership(self, duty: str, holder: str, seconds: float) -> bool:
        """Whether `holder` leads `duty` for the next `seconds`; of several holders one does."""

    @property
    @abstractmethod
    def live(self) -> LiveStore:
        """What live updates keep beside the queue: streamed text, and who is watching."""

    @abstractmethod
    def count(self, counts: Mapping[str, Mapping[str, float]], *, seconds: float) -> None:
        """Add to counters, by name and field; one round trip. Names that nothing is added to for `seconds` vanish."""

    @abstractmethod
    def read_counters(self, names: Sequence[str]) -> list[dict[str, float]]:
        """Return the counters of these names, each by field; one round trip."""

    @abstractmethod
    def ping(self) -> None:
        """Raise `QueueUnavailable` if the backend cannot be reached, `QueueMisconfigured` if it cannot serve."""

    def verify(self, queues: Sequence[str]) -> None:
        """Raise `QueueMisconfigured` if it can be seen that these queues will not work, else what `ping` raises."""
        self.ping()

    def eviction_policy(self) -> str:
        """Return the policy by which a full server deletes keys, or "" if it never does."""
        return ""

    @abstractmethod
    def clear(self) -> None:
        """Delete everything of every queue this backend object has touched; for tests."""

    def close(self) -> None:  # noqa: B027  # a backend without connections needs none
        """Close this process's connections; they are opened again when needed."""


class Listener(ABC):
    """A stream of activity ids, woken by notification. One thread reads it; any thread may `watch`.

    After a `QueueUnavailable` it hears nothing any more: close it, and make another.
    """

    @abstractmethod
    def get(self, timeout: float) -> UUID | None:
        """Return the next id, or None after `timeout` seconds. Raises `QueueUnavailable`."""

    @abstractmethod
    def watch(self, agent_id: UUID) -> None:
        """Hear of this activity from now on (listeners that hear of all ignore it)."""

    @abstractmethod
    def unwatch(self, agent_id: UUID) -> None:
        """Stop hearing of this activity."""

    @abstractmethod
    def close(self) -> None:
        """Release the connection."""
