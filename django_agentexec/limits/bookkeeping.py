"""The thread of a process that ends calls in the store, and renews the leases of calls in progress.

A call neither waits for it nor fails with it. What Redis does not take within `MAX_AGE` seconds is dropped: the slot of
the call is free after its lease, and its estimate leaves the window.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..background import BatchingThread
from ..conf import conf
from ..exceptions import QueueUnavailable
from ..logs import ThrottledLogger
from ..signals import worker_stopped
from .base import LimitStore, Reservation

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)

RENEWALS_PER_LEASE = 3
MAX_AGE = 60.0  # seconds
RETRY_INTERVAL = 1.0  # seconds
FLUSH_TIMEOUT = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class _Step:
    verb: Callable[[], None]
    until: float


class Bookkeeping(BatchingThread):
    """Ends and renews calls in the background, in the order of their ends."""

    thread_name = "agentexec-limits"

    def _reset(self) -> None:
        super()._reset()
        self._steps: deque[_Step] = deque()
        self._held: dict[str, tuple[LimitStore, Reservation]] = {}
        self._renewed_at = 0.0
        self._is_failing = False

    def hold(self, store: LimitStore, reservation: Reservation) -> None:
        """Renew the lease of a call until `end`."""
        if any(bucket.limit.concurrency for bucket in reservation.request.buckets):
            with self._lock:
                if not self._held:
                    self._renewed_at = time.monotonic()
                self._held[reservation.id] = store, reservation
                self._wake()

    def end(self, reservation: Reservation, verb: Callable[[], None]) -> None:
        """Call `verb` soon, which ends a call."""
        with self._lock:
            self._held.pop(reservation.id, None)
            self._steps.append(_Step(verb, time.monotonic() + MAX_AGE))
            self._wake()

    def do(self, verb: Callable[[], None]) -> None:
        """Call `verb` soon."""
        with self._lock:
            self._steps.append(_Step(verb, time.monotonic() + MAX_AGE))
            self._wake()

    def _interval(self) -> float:
        return RETRY_INTERVAL if self._is_failing else 0.0

    def _wait(self) -> None:
        self._has_items.wait(conf.LEASE / RENEWALS_PER_LEASE if self._held else None)

    def _process_batch(self) -> None:
        self._is_failing = False
        while self._steps and self._take_step():
            pass
        if time.monotonic() - self._renewed_at >= conf.LEASE / RENEWALS_PER_LEASE:
            self._renew()

    def _take_step(self) -> bool:
        """Call the next verb; return False, and keep it, if the server is unavailable."""
        step = self._steps[0]
        try:
            step.verb()
        except QueueUnavailable as error:
            if time.monotonic() < step.until:
                _log.warn("Could not end calls in the limits of models; trying again.", error)
                self._is_failing = True
                self._has_items.set()
                return False
        except Exception:
            logger.exception("Could not end a call in the limits of models.")
        self._steps.popleft()
        return True

    def _renew(self) -> None:
        with self._lock:
            held = dict(self._held)
        stores: dict[LimitStore, list[Reservation]] = {}
        for store, reservation in held.values():
            stores.setdefault(store, []).append(reservation)
        try:
            for store, reservations in stores.items():
                store.extend(reservations)
                for reservation in reservations:
                    if reservation.id not in self._held:  # it has ended meanwhile, and must not hold a slot again
                        store.settle(reservation, None)
            self._renewed_at = time.monotonic()
        except QueueUnavailable as error:
            _log.warn("Could not renew calls in the limits of models; trying again.", error)
            self._is_failing = True
            self._has_items.set()


bookkeeping = Bookkeeping()


def install() -> None:
    """End all calls before a worker ends."""
    worker_stopped.connect(_flush, dispatch_uid="agentexec.limits.flush")


def _flush(**signal: Any) -> None:
    bookkeeping.flush(FLUSH_TIMEOUT)
