"""The in-memory backend: the whole contract inside one process, for tests of projects and as a model in own tests.

Plain data structures under one lock; the clock is injectable. Nothing crosses processes.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from queue import Empty, SimpleQueue
from uuid import UUID

from ...conf import conf
from .. import base
from ..board import WORKER_TTL, WorkerInfo, WorkersReading
from ..breakers import LocalBreakers
from ..limits import Limit, Limits
from .live import MemoryLiveStore
from .state import Item, State

REFUNDS_PER_EXPIRED_LEASE = 4  # as in redis/lua/prelude.lua


class MemoryQueue(base.Queue):
    """A queue in the memory of this process. `clock` returns Unix seconds."""

    crosses_processes = False
    supports_limits = True

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._states: dict[str, State] = defaultdict(State)
        self._workers: dict[str, WorkerInfo] = {}
        self._leaders: dict[str, tuple[str, float]] = {}
        self._counters: dict[str, tuple[float, dict[str, float]]] = {}
        self._listeners: list[_MemoryListener] = []
        self._changed = threading.Condition(threading.RLock())
        self._live = MemoryLiveStore(clock)

    def enqueue(self, queue: str, messages: Sequence[base.Message]) -> int:
        with self._changed:
            state = self._states[queue]
            added = sum(self._enqueue_one(state, message) for message in messages)
            state.fence = max([state.fence, *(message.fence for message in messages)])
            state.offer_all(state.items[message.agent_id].partition for message in messages)
            self._changed.notify_all()
        return added

    def _enqueue_one(self, state: State, message: base.Message) -> bool:
        known = state.items.get(message.agent_id)
        if known is None:
            state.dead.discard(message.agent_id)
            self._add(state, message)
            return True
        if message.again and message.agent_id in state.leased:
            known.again = message
            return True
        return False

    def _add(self, state: State, message: base.Message) -> None:
        sequence = message.sequence
        if not sequence:
            sequence = state.sequence = max(state.sequence + 1, int(self._clock() * 1_000_000))
        item = Item(message.agent_id, message.partition, message.priority, sequence, message.crashes)
        item.add_limits(message.limits)
        if message.delay > 0:
            state.add_delayed(item, self._clock() + message.delay)
        else:
            state.add_pending(item)

    def ack_and_claim(
        self,
        queue: str,
        worker: str,
        acks: Sequence[base.Ack] = (),
        limit: int = 0,
        *,
        quarantine: bool = False,
        rows: base.DatabaseState = base.DatabaseState.NONE,
        only: UUID | None = None,
    ) -> base.Claims:
        with self._changed:
            state = self._states[queue]
            for ack in sorted(acks, key=lambda ack: ack.outcome is base.Outcome.DONE):
                self._acknowledge(state, ack)
            self._promote_due(state)
            claimed: list[base.Claim] = []
            while len(claimed) < limit and (ring := self._ring(state, quarantine, only)):
                for partition in ring[: limit - len(claimed)]:
                    if state.is_open(partition, self._clock()):  # an earlier claim may have reached a limit
                        claimed.append(self._claim(state, queue, worker, partition))
            self._changed.notify_all()
            return base.Claims(
                claimed,
                self._next_due(state),
                waiting=bool(self._ring(state, quarantine, only)),
                limits_revision=state.overrides.revision,
            )

    def _next_due(self, state: State) -> float | None:
        now = self._clock()
        times = [item.due for item in state.delayed.values()]
        reopenings = [state.reopens(partition, now) for partition in state.turns if state.starts]
        times += [at for at in reopenings if at is not None and at > now]
        return max(0.0, min(times) - now) if times else None

    def limits_revision(self, queue: str) -> str:
        with self._changed:
            return self._states[queue].overrides.revision

    def set_limits(self, queue: str, limits: Limits, *, replaces: str) -> bool:
        with self._changed:
            state = self._states[queue]
            if state.overrides.revision != replaces:
                return False
            state.overrides = limits
            self._changed.notify_all()
            return True

    def _ring(self, state: State, quarantine: bool, only: UUID | None = None) -> list[str]:
        """Return the partitions that can be claimed from, in the order of their turns."""
        if state.overrides.is_paused:
            return []
        now = self._clock()
        if only is None:
            ring = [partition for partition, (is_suspect, _) in state.turns.items() if is_suspect is quarantine]
        else:
            item = state.items.get(only)
            ring = [item.partition] if item and item.partition in state.turns else []
            ring = [partition for partition in ring if state.head(partition) is item]
        return sorted(
            (partition for partition in ring if state.is_open(partition, now)),
            key=lambda partition: state.turns[partition],
        )

    def _claim(self, state: State, queue: str, worker: str, partition: str) -> base.Claim:
        item = state.claim(partition, self._clock())
        item.worker, item.deadline = worker, self._clock() + conf.LEASE
        expired_leases = max(
            len(item.expired_leases), (item.refunded + len(item.expired_leases)) // REFUNDS_PER_EXPIRED_LEASE
        )
        state.offer(partition)  # a shared partition takes another turn
        keys = tuple(limit.key for limit in item.limits)
        return base.Claim(item.agent_id, item.fence, item.crashes, queue, item.partition, expired_leases, keys)

    def _acknowledge(self, state: State, ack: base.Ack) -> None:
        item = state.leased.get(ack.claim.agent_id)
        if item is None or item.fence != ack.claim.fence:
            self._refund(state, ack.claim)
            return
        if ack.outcome in (base.Outcome.RELEASE, base.Outcome.HOLD):
            self._put_back(state, item, limits=ack.limits)
            return
        state.unlock(item)
        item.turn = None
        if item.again:
            self._add(state, replace(item.again, again=False))
        elif ack.outcome is base.Outcome.RETRY and not item.canceled:
            if ack.delay > 0:
                state.add_delayed(item, self._clock() + ack.delay)
            else:
                state.add_pending(item)
        else:
            if ack.outcome is base.Outcome.DEAD:
                state.dead.add(item.agent_id)
            self._publish("finished", item.agent_id)
        state.offer(state.items.get(item.agent_id, item).partition)

    def _refund(self, state: State, claim: base.Claim) -> None:
        """Refund an expired lease whose worker turns out to be alive."""
        item = state.items.get(claim.agent_id)
        if item is None or claim.fence not in item.expired_leases:
            return
        item.expired_leases.remove(claim.fence)
        item.refunded += 1
        if not item.expired_leases:
            state.offer(item.partition)

    def _put_back(
        self, state: State, item: Item, *, crashed: bool = False, expired: bool = False, limits: Sequence[Limit] = ()
    ) -> None:
        state.unlock(item)
        item.add_limits(limits)
        if item.again:
            self._add(state, replace(item.again, again=False))
        elif not item.canceled:
            item.crashes += crashed
            if expired:
                item.expired_leases.append(item.fence)
            item.sequence = state.front_of(item)
            state.add_pending(item)
        state.offer(state.items.get(item.agent_id, item).partition)

    def _promote_due(self, state: State) -> None:
        now = self._clock()
        due = [item for item in state.delayed.values() if item.due <= now]
        due.sort(key=lambda item: (item.due, str(item.agent_id)))
        for item in due:
            del state.delayed[item.agent_id]
            state.add_pending(item)
        state.offer_all(item.partition for item in due)

    def begin_recovery(self, queue: str) -> str:
        return ""

    def end_recovery(self, queue: str, token: str) -> None:
        """Do nothing: the data is lost only with the process."""

    def heartbeat(self, queue: str, worker: str, claims: Sequence[base.Claim]) -> base.HeartbeatReply:
        with self._changed:
            state, now = self._states[queue], self._clock()
            held = [state.leased.get(c.agent_id) for c in claims]
            mine = [item for item, c in zip(held, claims, strict=True) if item and item.fence == c.fence]
            for item, claim in zip(held, claims, strict=True):
                if item is None or item.fence != claim.fence:
                    self._refund(state, claim)
            for item in mine:
                item.deadline = now + conf.LEASE
            self._promote_due(state)
            for item in [item for item in state.by_deadline() if item.deadline <= now]:
                self._put_back(state, item, expired=True)
            self._changed.notify_all()
            kept = {item.fence for item in mine}
            return base.HeartbeatReply(
                lost=[c.agent_id for c in claims if c.fence not in kept],
                canceled=[item.agent_id for item in mine if item.canceled],
            )

    def release_worker(
        self, queue: str, worker: str, *, keep: Sequence[base.Claim] | None = None, crashed: bool
    ) -> int:
        with self._changed:
            state, kept = self._states[queue], {claim.fence for claim in keep or ()}
            held = [i for i in state.by_deadline() if i.worker == worker and i.fence not in kept]
            for item in held:
                self._put_back(state, item, crashed=crashed)
            self._changed.notify_all()
            return len(held)

    def cancel(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        with self._changed:
            state = self._states[queue]
            for agent_id in agent_ids:
                item = state.items.get(agent_id)
                if item and agent_id in state.leased:
                    item.canceled, item.again = True, None
                    self._publish("canceled", agent_id)
                elif item:
                    state.remove(item)
                    state.offer(item.partition)
                self._publish("finished", agent_id)

    def list_leases(self, queue: str) -> dict[UUID, int]:
        with self._changed:
            return {agent_id: item.fence for agent_id, item in self._states[queue].leased.items()}

    def request_stop(self, queue: str, claims: Mapping[UUID, int]) -> int:
        with self._changed:
            held = [(self._states[queue].leased.get(agent_id), fence) for agent_id, fence in claims.items()]
            stopped = [item for item, fence in held if item and item.fence == fence and not item.canceled]
            for item in stopped:
                item.canceled = True
                self._publish("canceled", item.agent_id)
            return len(stopped)

    def missing(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        with self._changed:
            return [agent_id for agent_id in agent_ids if agent_id not in self._states[queue].items]

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: any(self._ring(self._states[q], False) for q in queues), timeout)

    def stats(self, queue: str) -> base.QueueStats:
        with self._changed:
            state = self._states[queue]
            return base.QueueStats(
                ready=len(self._ring(state, False)),
                pending=sum(map(len, state.pending.values())),
                suspects=len(self._ring(state, True)),
                leased=len(state.leased),
                delayed=len(state.delayed),
                dead=len(state.dead),
            )

    def listen_canceled(self) -> base.Listener:
        return self._listen(_MemoryListener(self, "canceled", receives_all=True))

    def listen_finished(self) -> base.Listener:
        return self._listen(_MemoryListener(self, "finished", receives_all=False))

    def _listen(self, listener: _MemoryListener) -> _MemoryListener:
        with self._changed:
            self._listeners.append(listener)
        return listener

    def remove_listener(self, listener: _MemoryListener) -> None:
        """Remove a closed listener."""
        with self._changed:
            self._listeners.remove(listener)

    def _publish(self, kind: str, agent_id: UUID) -> None:
        for listener in self._listeners:
            listener.publish(kind, agent_id)

    def register_worker(self, worker: WorkerInfo) -> None:
        with self._changed:
            self._workers[worker.id] = replace(worker, last_beat=self._clock() - worker.silence(time.time()))
            silent_since = self._clock() - WORKER_TTL
            self._workers = {name: known for name, known in self._workers.items() if known.last_beat >= silent_since}

    def deregister_worker(self, worker_id: str) -> None:
        with self._changed:
            self._workers.pop(worker_id, None)

    def workers(self) -> WorkersReading:
        with self._changed:
            now = self._clock()
            recent = [worker for worker in self._workers.values() if worker.last_beat >= now - WORKER_TTL]
            return WorkersReading(recent, now=now)

    def try_acquire_leadership(self, role: str, holder: str, seconds: float) -> bool:
        with self._changed:
            now = self._clock()
            leader, until = self._leaders.get(role, (holder, now))
            if leader != holder and until > now:
                return False
            self._leaders[role] = (holder, now + seconds)
            return True

    def increment_counters(self, counts: Mapping[str, Mapping[str, float]], *, seconds: float) -> None:
        with self._changed:
            for name, fields in counts.items():
                until, known = self._counters.get(name, (0.0, {}))
                known = known if until > self._clock() else {}
                for field, amount in fields.items():
                    known[field] = known.get(field, 0.0) + amount
                self._counters[name] = self._clock() + seconds, known

    def read_counters(self, names: Sequence[str]) -> list[dict[str, float]]:
        with self._changed:
            found = [self._counters.get(name, (0.0, {})) for name in names]
            return [dict(fields) if until > self._clock() else {} for until, fields in found]

    @property
    def live(self) -> MemoryLiveStore:
        return self._live

    @cached_property
    def breakers(self) -> LocalBreakers:
        return LocalBreakers(self._clock)

    def ping(self) -> None:
        """Do nothing: memory is always available."""

    def clear(self) -> None:
        with self._changed:
            self._states.clear()
            self._workers.clear()
            self._leaders.clear()
            self._counters.clear()
        self.breakers.reset()
        self._live.clear()


class _MemoryListener(base.Listener):
    def __init__(self, queue: MemoryQueue, kind: str, *, receives_all: bool) -> None:
        self._queue = queue
        self._kind = kind
        self._receives_all = receives_all
        self._watched: set[UUID] = set()
        self._received: SimpleQueue[UUID] = SimpleQueue()

    def publish(self, kind: str, agent_id: UUID) -> None:
        if kind == self._kind and (self._receives_all or agent_id in self._watched):
            self._received.put(agent_id)

    def get(self, timeout: float) -> UUID | None:
        try:
            return self._received.get(timeout=timeout)
        except Empty:
            return None

    def watch(self, agent_id: UUID) -> None:
        self._watched.add(agent_id)

    def unwatch(self, agent_id: UUID) -> None:
        self._watched.discard(agent_id)

    def close(self) -> None:
        self._queue.remove_listener(self)
