"""The contract of a queue backend: the place of waiting and claimed activities outside the database.

A queue holds ids, never contexts. The database rows are authoritative: a queue that loses all its data is restored
from them. Every verb works on batches and is atomic per queue name. All verbs are synchronous and safe to call from
several threads. `tests/integration/queues/test_queue_contract.py` is the conformance suite that every backend must
pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from uuid import UUID

from .board import Board
from .breakers import BreakerStore, LocalBreakers
from .limits import Limit, Limits
from .live import LiveStore

BEATS_PER_LEASE = 3
"""Heartbeats per lease: a worker may miss two, and a pause in which every worker beats once need not be longer."""

MAX_WAIT = 5.0
"""Maximum seconds for which `Queue.wait` may block; a worker polls after them."""

EVICTING_POLICIES = frozenset({"allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-lrm"})
"""Policies of a full server that delete keys without an expiry time, which all keys of the queue are."""


@dataclass(frozen=True, slots=True)
class Message:
    """An activity on its way into a queue."""

    agent_id: UUID
    partition: str
    """The partition in which it waits; activities of one partition run one at a time. Must not contain a NUL.

    `i:` and the activity's own id is a partition without other members, as for an activity without a lock key.
    Activities of a partition that begins with `f:` (`limits.shared_partition`) run any number at a time: partitions
    take turns, in each of which one activity is claimed.
    """
    priority: int = 4
    """0 (first) to 9 (last)."""
    delay: float = 0.0
    """Seconds from now until it is due, by the clock of the queue."""
    sequence: int = 0
    """Position in its partition, in microseconds since 1970; 0 appends it at the end."""
    crashes: int = 0
    """Processes that died while they ran it; above 0, only quarantine processes may claim it."""
    again: bool = False
    """Whether it must run once more even if it is running at present (a manual retry)."""
    fence: int = 0
    """The fence of its row, which rejects smaller fences: the next claim gets a larger fence."""
    limits: tuple[Limit, ...] = ()
    """The limits that its claims count against. It is claimed only while none of them is reached.

    In a shared partition, an activity waits only behind activities with the same limits.
    """


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one activity until the lease ends."""

    agent_id: UUID
    fence: int
    """Larger than every fence issued before, over all activities of the queue."""
    crashes: int
    queue: str
    ticket: str = field(repr=False)
    """Data with which the backend can restore this claim after a loss of data; opaque to the worker."""
    expired_leases: int = 0
    """Leases of this activity that expired although no pool reported the death of their worker.

    Leases whose worker contacts the queue again are refunded; four refunded leases count as one.
    """
    limit_keys: tuple[str, ...] = ()
    """The keys of the limits that it counts against."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The reply to `ack_and_claim`."""

    claimed: list[Claim]
    next_due: float | None
    """Seconds until the next claim can succeed (a delayed activity comes due, a pause ends); None if unknown."""
    waiting: bool
    """Whether a higher limit would have claimed more."""
    paused: bool = False
    """Whether nothing can be claimed at present because the queue has lost data and is being restored."""
    needs_recovery: bool = False
    """Whether the queue also waits until it is restored from the rows, for at most 30 seconds."""
    limits_revision: str = ""
    """The `Limits.revision` that applied to these claims."""


class Outcome(Enum):
    """The effect of the end of an attempt on the queue."""

    DONE = "done"
    """Finished: remove it."""
    DEAD = "dead"
    """Finished with an error: remove it, but keep its id among the dead letters."""
    RETRY = "retry"
    """Run it again after `Ack.delay` seconds."""
    RELEASE = "release"
    """Return it to its place, uncharged."""
    HOLD = "hold"
    """Return it to its place, with `Ack.limits` in addition to its own."""


class DatabaseState(Enum):
    """The active rows that a worker found when it started; they distinguish a new queue from a queue that lost data."""

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
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """The reply to `heartbeat`."""

    lost: list[UUID]
    """Claims that no longer belong to this worker: stop them, and write nothing."""
    canceled: list[UUID]
    """Claims whose activity was canceled: stop them."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The numbers of activities of a queue, by place."""

    ready: int
    """Partitions with an activity that can be claimed at once."""
    pending: int
    """Activities that wait for a slot or for their partition."""
    suspects: int
    """Partitions that wait for a quarantine process."""
    leased: int
    delayed: int
    dead: int


class Queue(Board, ABC):
    """A queue backend. Flags describe its abilities; verbs raise `QueueUnavailable` if it cannot be reached."""

    crosses_processes: bool = True
    """Whether one process can claim activities that another process enqueued."""
    supports_delay: bool = True
    """Whether `Message.delay` is honoured; `enqueue` rejects delays otherwise."""
    supports_priority: bool = True
    """Whether `Message.priority` is honoured; `enqueue` rejects priorities otherwise."""
    supports_partitions: bool = True
    """Whether activities of one partition run one at a time, in order; `enqueue` rejects lock keys otherwise."""
    supports_limits: bool = False
    """Whether shared partitions, `Message.limits`, `Outcome.HOLD` and the limits of rows are honoured."""

    @property
    def server_setting(self) -> str:
        """The setting that determines the server, for error messages."""
        return "AGENTEXEC['QUEUE_BACKEND']"

    @abstractmethod
    def enqueue(self, queue: str, messages: Sequence[Message]) -> int:
        """Add the messages that are not in the queue yet and return their number. One round trip per 1,000 messages.

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
        only: UUID | None = None,
    ) -> Claims:
        """Acknowledge claims, then claim up to `limit` activities, in one round trip.

        With `quarantine`, only activities that crashed a process are claimed; without, only others. With `only`, this
        activity is claimed and no other, whether it crashed a process or not: as soon as it is the first of its
        partition and no limit or pause holds it back.
        A backend that detects a loss of data issues no claim during a pause, in which live workers restore their
        claims by a heartbeat, and none before `end_recovery`, so that later activities do not overtake lost ones.
        """

    def limits_revision(self, queue: str) -> str:
        """Return the revision of the limits that were set last, or "" if there are none or they were lost."""
        return ""

    def set_limits(self, queue: str, limits: Limits, *, replaces: str) -> bool:
        """Set the limits of rows; return False, without effect, if the present revision is not `replaces`."""
        return False

    @abstractmethod
    def begin_recovery(self, queue: str) -> str:
        """Return a token of the loss of data that a recovery is about to repair, or "" if there is none."""

    @abstractmethod
    def end_recovery(self, queue: str, token: str) -> None:
        """Note that all activities of the rows are in the queue again, unless data was lost once more."""

    @abstractmethod
    def heartbeat(self, queue: str, worker: str, claims: Sequence[Claim]) -> HeartbeatReply:
        """Extend these claims by a lease; also promote due activities and return those whose lease has expired.

        An expired lease is no crash, since its worker may be alive and out of reach. It is counted separately, and
        refunded when that worker sends a heartbeat or acknowledges the claim later.
        Before its first `ack_and_claim` a worker has nothing to report; the call may do nothing then.
        """

    @abstractmethod
    def release_worker(self, queue: str, worker: str, *, keep: Sequence[Claim] | None = None, crashed: bool) -> int:
        """Release all claims of `worker` except `keep` and return their number; charge a crash if `crashed`.

        `keep` matches claims by fence: another claim of the same activity is released. A worker that missed a reply
        passes `keep`, even if it is an empty list; the pool of a worker that has ended omits it.
        """

    @abstractmethod
    def cancel(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Remove waiting activities and notify the workers of claimed ones; also wake clients that await them."""

    @abstractmethod
    def list_leases(self, queue: str) -> dict[UUID, int]:
        """Return the fences of the current claims, by activity. Reads in pages, one round trip each."""

    @abstractmethod
    def request_stop(self, queue: str, claims: Mapping[UUID, int]) -> int:
        """Notify the workers of these claims (fences, by activity) to stop; return the number of new notifications.

        Another claim of the same activity is not affected, and an activity that is to run again afterwards does.
        """

    @abstractmethod
    def missing(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Return the activities that are neither waiting nor claimed."""

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Block until there may be something to claim; return False after `timeout` seconds without a notification."""

    @abstractmethod
    def stats(self, queue: str) -> QueueStats:
        """Count a queue's activities by place."""

    @abstractmethod
    def listen_canceled(self) -> Listener:
        """Return a listener for the ids of running activities that are canceled."""

    @abstractmethod
    def listen_finished(self) -> Listener:
        """Return a listener for the ids of activities that ended; it receives those that it watches."""

    @property
    @abstractmethod
    def live(self) -> LiveStore:
        """The store of live updates: streamed text and watched topics."""

    @cached_property
    def breakers(self) -> BreakerStore:
        """The circuit breakers of models; those of this process only, unless the backend shares them."""
        return LocalBreakers()

    @abstractmethod
    def ping(self) -> None:
        """Raise `QueueUnavailable` if the backend cannot be reached, `QueueMisconfigured` if it cannot serve."""

    def verify(self, queues: Sequence[str]) -> None:
        """Raise `QueueMisconfigured` if these queues visibly cannot work, else the exceptions of `ping`."""
        self.ping()

    def eviction_policy(self) -> str:
        """Return the policy by which a full server deletes keys, or "" if it never does."""
        return ""

    @abstractmethod
    def clear(self) -> None:
        """Delete everything of every queue that this backend object has used; for tests."""

    def close(self) -> None:  # a backend without connections needs none
        """Close this process's connections; they are opened again when needed."""


class Listener(ABC):
    """A stream of activity ids, woken by notification. One thread reads it; any thread may call `watch`.

    After a `QueueUnavailable` it receives nothing more: close it and create another.
    """

    @abstractmethod
    def get(self, timeout: float) -> UUID | None:
        """Return the next id, or None after `timeout` seconds. Raises `QueueUnavailable`."""

    @abstractmethod
    def watch(self, agent_id: UUID) -> None:
        """Receive notifications of this activity from now on; no effect on a listener that receives all."""

    @abstractmethod
    def unwatch(self, agent_id: UUID) -> None:
        """Stop receiving notifications of this activity."""

    @abstractmethod
    def close(self) -> None:
        """Release the connection."""
