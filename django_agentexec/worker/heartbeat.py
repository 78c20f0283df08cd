"""The lease keeper: a thread that extends the process's leases, and hears of cancellations in between.

It has its own connections, so a handler that blocks the event loop does not lose its lease. A worker that
cannot reach the queue for a whole lease must assume that others run what it holds.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..queues import Queue, WorkerInfo
from ..queues.base import BEATS_PER_LEASE, Listener
from .claimer import HeldClaim, jittered
from .critical_threads import start_critical_thread

logger = logging.getLogger(__name__)

OVERDUE_MARGIN = 1.0  # seconds before the end of a lease at which it counts as over: the time between two looks
EARLIEST_BEAT = 0.85  # part of the time between two heartbeats: jitter, never later than a third of a lease
LISTEN_SLICE = 0.5  # seconds of one read of the cancel channel: how late a stop of the thread may be


class Heartbeat:
    """Beats for every held claim; calls back, in its own thread, for what is lost or canceled."""

    def __init__(
        self,
        queue: Queue,
        info: WorkerInfo,
        held: Mapping[UUID, HeldClaim],
        giving_back: threading.Lock,
        *,
        on_lost: Callable[[Iterable[UUID]], None],
        on_canceled: Callable[[Iterable[UUID]], None],
        on_beat: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._info = info
        self._held = held
        self._giving_back = giving_back
        self._on_lost = on_lost
        self._on_canceled = on_canceled
        self._on_beat = on_beat
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_critical_thread("agentexec-lease", self._run)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2 * LISTEN_SLICE)

    def deregister_worker(self) -> None:
        """Forget the worker in the queue; to be called after `stop`."""
        try:
            self._queue.deregister_worker(self._info.id)
        except QueueUnavailable:
            logger.info("Worker %s could not say good-bye; it is forgotten in a few minutes.", self._info.id)

    def _run(self) -> None:
        listener: Listener | None = None
        next_beat = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + random.uniform(EARLIEST_BEAT, 1) * conf.LEASE / BEATS_PER_LEASE
                    self._beat()
                listener = listener or self._queue.listen_canceled()
                canceled = listener.get(max(0.0, min(LISTEN_SLICE, next_beat - time.monotonic())))
                held = self._held.get(canceled) if canceled is not None else None
                if held is not None:
                    # A call may be late, and mean an earlier claim of the same activity: the queue knows.
                    self._extend(held.claim.queue, canceled)
            except QueueUnavailable:
                if listener is not None:
                    listener.close()
                    listener = None
                # Sooner than a whole interval: the lease is running out.
                next_beat = time.monotonic() + jittered(min(1.0, conf.LEASE / 10))
                self._stopping.wait(jittered(min(LISTEN_SLICE, conf.LEASE / 10)))
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
        with self._giving_back:
            claims = [
                held.claim
                for agent_id, held in list(self._held.items())
                if held.claim.queue == queue and only in (None, agent_id)
            ]
            started = time.monotonic()
            beat = self._queue.heartbeat(queue, self._info.id, claims)
        # While the queue was asked, a claim may have ended and its activity may have been claimed anew.
        present = {c.agent_id: held for c in claims if (held := self._held.get(c.agent_id)) and held.claim is c}
        lost = [agent_id for agent_id in beat.lost if agent_id in present]
        for agent_id, held in present.items():
            if agent_id not in beat.lost:
                held.extended = started
        if lost:
            self._on_lost(lost)
        if canceled := [agent_id for agent_id in beat.canceled if agent_id in present]:
            self._on_canceled(canceled)

    def overdue(self) -> list[UUID]:
        """Return what others may run before long, since its lease could not be extended. For any thread."""
        limit = _overdue_limit()
        return [agent_id for agent_id, held in list(self._held.items()) if held.extended < limit]

    def is_overdue(self, agent_id: UUID) -> bool:
        """Whether this one is among the overdue. For any thread."""
        held = self._held.get(agent_id)
        return held is not None and held.extended < _overdue_limit()


def _overdue_limit() -> float:
    return time.monotonic() - conf.LEASE + min(OVERDUE_MARGIN, conf.LEASE / BEATS_PER_LEASE)
