"""Circuit breakers of models, shared by all processes that use the queue's server.

A breaker counts the calls of one model in a sliding window and opens after too many failures. While it is open, no call
is permitted. After a pause it is half-open: a single call of the whole fleet, the probe, is permitted, and its outcome
closes or opens the breaker. Times are by the server's clock.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

SLOTS = 6
"""Parts of a window: a call counts for at least five sixths of it."""
FORGET_AFTER = 86_400.0
"""Seconds without a call after which a breaker is forgotten."""
MAX_NAME = 300
"""Characters of a breaker's name."""
MAX_REASON = 200
"""Characters of the reason of the latest failure."""


class BreakerState(StrEnum):
    """The states of a circuit breaker; the values are those of the wire format."""

    CLOSED = "closed"
    """Calls are permitted."""
    OPEN = "open"
    """No call is permitted."""
    HALF_OPEN = "half_open"
    """The next call is a probe, or a probe is in progress."""


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a breaker opens, and for how long. Times are in seconds."""

    failures: int
    """Failures within the window that open it; 0: it never opens."""
    window: float
    open: float
    """The time until a probe is permitted."""
    rate: float
    """The minimum share of failed calls within the window, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Permit:
    """The reply to `acquire`."""

    is_permitted: bool
    probe: str = ""
    """The token of a probe; "" for other calls."""
    retry_in: float = 0.0
    """If the call is not permitted: seconds until the next probe may start."""


@dataclass(frozen=True, slots=True)
class BreakerReading:
    """A breaker at one moment."""

    name: str
    state: BreakerState
    failures: int = 0
    """Failed calls within the window; 0 if the breaker is not closed."""
    calls: int = 0
    retry_in: float = 0.0
    """Seconds until a probe may start; 0 if it is closed."""
    open_for: float = 0.0
    """Seconds since it opened; 0 if it is closed."""
    reason: str = ""
    """The type of the latest failure."""


class BreakerStore(ABC):
    """The breakers of all models. Verbs raise `QueueUnavailable`; all are safe to call from several threads."""

    @abstractmethod
    def acquire(self, name: str, options: BreakerOptions, token: str, lease: float) -> Permit:
        """Return whether a call is permitted now.

        A probe gets `token` and must report its outcome within `lease` seconds, or another probe may start. The holder
        of a probe extends its lease with the same token.
        """

    @abstractmethod
    def record(self, name: str, options: BreakerOptions, *, ok: bool, probe: str = "", reason: str = "") -> bool:
        """Count the outcome of a permitted call; return whether it has opened or closed the breaker.

        The outcome of a call that began before the breaker opened does not change an open breaker.
        """

    @abstractmethod
    def release(self, name: str, probe: str) -> None:
        """End a probe without an outcome, so that another may start at once."""

    @abstractmethod
    def read(self, options: BreakerOptions) -> list[BreakerReading]:
        """Return the breakers of all models that were called in the last day, by name."""

    @abstractmethod
    def reset(self, name: str | None = None) -> None:
        """Close a breaker, or all."""


@dataclass(slots=True)
class _Breaker:
    state: BreakerState = BreakerState.CLOSED
    slots: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Calls and failures by the number of the slot."""
    opened_at: float = 0.0
    until: float = 0.0
    """Open: the earliest time of a probe; half-open: the end of the probe's lease."""
    probe: str = ""
    reason: str = ""
    at: float = 0.0


class LocalBreakers(BreakerStore):
    """Breakers of this process only. `clock` returns Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._breakers: dict[str, _Breaker] = {}

    def acquire(self, name: str, options: BreakerOptions, token: str, lease: float) -> Permit:
        with self._lock:
            now, breaker = self._clock(), self._breakers.get(name[:MAX_NAME])
            if breaker is None or breaker.state == BreakerState.CLOSED:
                return Permit(True)
            is_own = breaker.state == BreakerState.HALF_OPEN and breaker.probe == token
            if not is_own and now < breaker.until:
                return Permit(False, retry_in=breaker.until - now)
            breaker.state, breaker.probe, breaker.until, breaker.at = BreakerState.HALF_OPEN, token, now + lease, now
            return Permit(True, token)

    def record(self, name: str, options: BreakerOptions, *, ok: bool, probe: str = "", reason: str = "") -> bool:
        with self._lock:
            now = self._clock()
            breaker = self._breakers.setdefault(name[:MAX_NAME], _Breaker())
            breaker.at = now
            if not ok and reason:
                breaker.reason = reason[:MAX_REASON]
            if breaker.state != BreakerState.CLOSED:
                if breaker.state != BreakerState.HALF_OPEN or breaker.probe != probe:
                    return False
                if ok:
                    self._breakers[name[:MAX_NAME]] = _Breaker(at=now)
                else:
                    breaker.state, breaker.probe, breaker.until = BreakerState.OPEN, "", now + options.open
                return True
            calls, failures = _count(breaker, options, now, ok=ok)
            if ok or not options.failures or failures < options.failures or failures < options.rate * calls:
                return False
            self._breakers[name[:MAX_NAME]] = replace(
                breaker, state=BreakerState.OPEN, slots={}, opened_at=now, until=now + options.open
            )
            return True

    def release(self, name: str, probe: str) -> None:
        with self._lock:
            breaker = self._breakers.get(name[:MAX_NAME])
            if breaker is not None and probe and breaker.probe == probe:
                breaker.probe, breaker.until = "", self._clock()

    def read(self, options: BreakerOptions) -> list[BreakerReading]:
        with self._lock:
            now = self._clock()
            self._breakers = {name: each for name, each in self._breakers.items() if each.at > now - FORGET_AFTER}
            return [_reading(name, each, options, now) for name, each in sorted(self._breakers.items())]

    def reset(self, name: str | None = None) -> None:
        with self._lock:
            if name is None:
                self._breakers.clear()
            else:
                self._breakers.pop(name[:MAX_NAME], None)


def slot_at(now: float, window: float) -> int:
    """Return the number of the slot of a window at a time."""
    return int(now * SLOTS / window)


def state_at(state: BreakerState, until: float, now: float) -> BreakerState:
    """Return the state that users see: an open breaker whose pause has ended waits for a probe."""
    return BreakerState.HALF_OPEN if state == BreakerState.OPEN and until <= now else state


def _count(breaker: _Breaker, options: BreakerOptions, now: float, *, ok: bool) -> tuple[int, int]:
    """Count a call; return the calls and failures in the window."""
    slot = slot_at(now, options.window)
    slots = {number: counts for number, counts in breaker.slots.items() if slot - SLOTS < number <= slot}
    calls, failures = slots.get(slot, (0, 0))
    slots[slot] = calls + 1, failures + (not ok)
    breaker.slots = slots
    return sum(calls for calls, _ in slots.values()), sum(failures for _, failures in slots.values())


def _reading(name: str, breaker: _Breaker, options: BreakerOptions, now: float) -> BreakerReading:
    slot = slot_at(now, options.window)
    counts = [each for number, each in breaker.slots.items() if slot - SLOTS < number <= slot]
    is_closed = breaker.state == BreakerState.CLOSED
    return BreakerReading(
        name=name,
        state=state_at(breaker.state, breaker.until, now),
        failures=sum(failures for _, failures in counts),
        calls=sum(calls for calls, _ in counts),
        retry_in=0.0 if is_closed else max(0.0, breaker.until - now),
        open_for=0.0 if is_closed else now - breaker.opened_at,
        reason=breaker.reason,
    )
