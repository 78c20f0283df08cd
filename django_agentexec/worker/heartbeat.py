"""The heartbeat: a thread that extends the leases of the process and receives cancellations in between.

It has its own connections, so a handler that blocks the event loop does not lose its lease. If a worker cannot reach
the queue for the duration of a lease, it must assume that other workers run its activities.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from ..background import start_critical_thread
from ..conf import conf
from ..exceptions import QueueUnavailable
from ..queues import Queue, WorkerInfo
from ..queues.base import BEATS_PER_LEASE, Listener
from ..queues.board import WORKER_TTL
from .claimer import HeldClaim, jittered

logger = logging.getLogger(__name__)

OVERDUE_MARGIN = 1.0  # seconds before its end from which a lease counts as expired: the time between two checks
MIN_INTERVAL_FRACTION = 0.85  # jitter: fraction of the interval after which the earliest heartbeat is sent
LISTEN_TIMEOUT = 0.5  # seconds of one read of the cancel channel, which delays a stop of the thread


class Heartbeat:
    """A thread that sends heartbeats for all held claims; it calls back for lost and canceled activities."""

    def __init__(
        self,
        queue: Queue,
        info: WorkerInfo,
        held: Mapping[UUID, HeldClaim],
        release_lock: threading.Lock,
        *,
        on_lost: Callable[[Iterable[UUID]], None],
        on_canceled: Callable[[Iterable[UUID]], None],
        on_beat: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._info = info
        self._held = held
        self._release_lock = release_lock
        self._on_lost = on_lost
        self._on_canceled = on_canceled
        self._on_beat = on_beat
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_critical_thread("agentexec-heartbeat", self._run)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2 * LISTEN_TIMEOUT)

    def deregister_worker(self) -> None:
        """Delete the entry of the worker in the queue; call it after `stop`."""
        try:
            self._queue.deregister_worker(self._info.id)
        except QueueUnavailable:
            logger.info(
                "Could not deregister worker %s; its entry expires in %.0f minutes.", self._info.id, WORKER_TTL / 60
            )

    def _run(self) -> None:
        listener: Listener | None = None
        next_beat = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= next_beat:
                    next_beat = (
                        time.monotonic() + random.uniform(MIN_INTERVAL_FRACTION, 1) * conf.LEASE / BEATS_PER_LEASE
                    )
                    self._beat()
                listener = listener or self._queue.listen_canceled()
                canceled = listener.get(max(0.0, min(LISTEN_TIMEOUT, next_beat - time.monotonic())))
                held = self._held.get(canceled) if canceled is not None else None
                if held is not None:
                    # The notification may be late and concern an earlier claim of the activity: the reply decides.
                    self._extend(held.claim.queue, canceled)
            except QueueUnavailable:
                if listener is not None:
                    listener.close()
                    listener = None
                # Earlier than after a whole interval, since the lease is about to expire.
                next_beat = time.monotonic() + jittered(min(1.0, conf.LEASE / 10))
                self._stopping.wait(jittered(min(LISTEN_TIMEOUT, conf.LEASE / 10)))
        if listener is not None:
            listener.close()

    def _beat(self) -> None:
        queues = {*self._info.queues, *(held.claim.queue for held in list(self._held.values()))}
        for name in queues:
            self._extend(name)
        self._on_beat()
        self._info.last_beat = time.time()
        self._queue.register_worker(self._info)

    def _extend(self, queue: str, only: UUID | None = None) -> None:
        with self._release_lock:
            claims = [
                held.claim
                for agent_id, held in list(self._held.items())
                if held.claim.queue == queue and only in (None, agent_id)
            ]
            started = time.monotonic()
            reply = self._queue.heartbeat(queue, self._info.id, claims)
        # Meanwhile a claim may have ended, and its activity may have been claimed again.
        present = {c.agent_id: held for c in claims if (held := self._held.get(c.agent_id)) and held.claim is c}
        lost = [agent_id for agent_id in reply.lost if agent_id in present]
        for agent_id, held in present.items():
            if agent_id not in reply.lost:
                held.extended = started
        if lost:
            self._on_lost(lost)
        if canceled := [agent_id for agent_id in reply.canceled if agent_id in present]:
            self._on_canceled(canceled)

    def overdue(self) -> list[UUID]:
        """Return the activities that other workers may run soon, since their lease was not extended. For any thread."""
        limit = _overdue_limit()
        return [agent_id for agent_id, held in list(self._held.items()) if held.extended < limit]

    def is_overdue(self, agent_id: UUID) -> bool:
        """Return whether the lease of an activity is overdue. For any thread."""
        held = self._held.get(agent_id)
        return held is not None and held.extended < _overdue_limit()


def _overdue_limit() -> float:
    return time.monotonic() - conf.LEASE + min(OVERDUE_MARGIN, conf.LEASE / BEATS_PER_LEASE)
