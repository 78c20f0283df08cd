"""Calls under a circuit breaker. While the breakers' server is unavailable, every call is permitted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

from asgiref.sync import sync_to_async

from ..exceptions import QueueUnavailable
from ..logs import ThrottledLogger
from ..queues import get_queue
from ..queues.breakers import BreakerOptions, BreakerStore, Permit
from .options import breaker_options

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)

T = TypeVar("T")

SKIP_AFTER_ERROR = 5.0
"""Seconds for which this process does not contact an unavailable server again: each try may wait for REDIS_TIMEOUT."""
RENEWALS_PER_LEASE = 3

_skip_until = 0.0


class BreakerCall:
    """One call of a model under its breaker: `begin`, then one of `succeed`, `fail` and `release`."""

    def __init__(self, name: str, lease: float) -> None:
        self.name = name
        self._lease = lease
        self._token = uuid4().hex
        self._probe = ""
        self._renew_at = 0.0
        self._options = breaker_options()
        self._is_counted = False

    async def begin(self) -> Permit:
        """Return whether the call is permitted."""
        if not self._options.failures:
            return Permit(True)
        permit = await _contact(lambda store: store.acquire(self.name, self._options, self._token, self._lease))
        if permit is None:
            return Permit(True)
        self._is_counted, self._probe = permit.is_permitted, permit.probe
        self._renew_at = time.monotonic() + self._lease / RENEWALS_PER_LEASE
        return permit

    async def renew(self) -> None:
        """Extend the lease of a probe that has made progress; a call that is no probe needs no contact."""
        if self._probe and time.monotonic() >= self._renew_at:
            await self.begin()

    async def succeed(self) -> None:
        """Count a success."""
        await self._record(ok=True, reason="")

    async def fail(self, reason: str) -> float:
        """Count a failure, with the type of its error; return for how many seconds it has opened the breaker."""
        return self._options.open if await self._record(ok=False, reason=reason) else 0.0

    async def release(self) -> None:
        """End a call that has neither succeeded nor failed, such as one that was canceled."""
        if self._probe:
            probe, self._probe = self._probe, ""
            await _contact(lambda store: store.release(self.name, probe))

    async def _record(self, *, ok: bool, reason: str) -> bool:
        """Count an outcome; return whether it has opened or closed the breaker."""
        if not self._is_counted:
            return False
        options, probe, self._probe, self._is_counted = self._options, self._probe, "", False
        has_changed = await _contact(lambda store: store.record(self.name, options, ok=ok, probe=probe, reason=reason))
        if has_changed:
            _log_change(self.name, options, ok=ok, reason=reason)
        return bool(has_changed)


def _log_change(name: str, options: BreakerOptions, *, ok: bool, reason: str) -> None:
    if ok:
        logger.info("The circuit breaker of model %s is closed again.", name)
    else:
        logger.warning(
            "The circuit breaker of model %s is open for %g s: its calls fail (%s).", name, options.open, reason
        )


async def _contact(call: Callable[[BreakerStore], T]) -> T | None:
    """Return the reply of the store, or None while its server is unavailable."""
    global _skip_until
    if time.monotonic() < _skip_until:
        return None
    try:
        reply: T = await sync_to_async(_called, thread_sensitive=False)(call)
    except QueueUnavailable as error:
        _skip_until = time.monotonic() + SKIP_AFTER_ERROR
        _log.warn("The circuit breakers of models are not available; every call is permitted.", error)
        return None
    return reply


def _called(call: Callable[[BreakerStore], Any]) -> Any:
    return call(get_queue().breakers)


def reset() -> None:
    """Contact the server again at the next call."""
    global _skip_until
    _skip_until = 0.0
