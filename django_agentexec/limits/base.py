"""The contract of a store of limits, which all processes of the fleet share.

`tests/integration/limits/test_limits_contract.py` is the conformance suite that every store must pass.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from .rules import Bucket

POLL_GRACE = 10.0
"""Seconds after which the ticket of a caller that does not ask again expires."""
SUSPENDED_GRACE = 60.0
"""Seconds for which a suspended activity keeps its ticket after the end of its wait."""
SLOT_WAIT = 1.0
"""Seconds that a call is expected to last before any has ended."""
MIN_SLOT_WAIT = 0.01
"""Seconds until the end of a call in progress, at least."""
DURATION_WEIGHT = 0.1
"""Of a call in the average duration of calls."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call that needs a grant."""

    buckets: Sequence[Bucket]
    """Where it counts; it is granted in all of them or in none."""
    tokens: int
    """An estimate; a call with more tokens than a limit allows takes all of them."""
    ticket: str
    """The name of the call, by which it keeps its place among those that wait."""
    tenant: str = ""
    """The tenants of waiting calls take turns; the calls of a tenant are served in their order."""
    endpoint: str = ""
    """The host that is called. It closes buckets for calls to itself only."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A granted call."""

    request: Request
    id: str = field(default_factory=lambda: uuid4().hex)
    granted_at: float = field(default_factory=time.monotonic)
    """On the monotonic clock of this process."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The reply to a call that is not granted yet: it asks again, at the latest after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a bucket is."""

    requests: int
    tokens: int
    in_progress: int
    waiting: int
    closed: float
    """Seconds for which it is closed for calls to some endpoint; 0 if it is open."""


class LimitStore(ABC):
    """A store of limits. Verbs raise `QueueUnavailable` if it cannot be reached. Thread-safe."""

    @abstractmethod
    def reserve(self, request: Request, patience: float | None = None) -> Reservation | Wait:
        """Grant a call, or return how long it has to wait at least.

        A grant counts for the span of the limit, and as in progress until `settle` or for a lease (`LEASE` seconds),
        which `extend` renews. With a wait, the call gets a ticket. `patience` is the number of seconds after which the
        caller is suspended instead of asking again: its ticket is kept for a longer wait, otherwise for `POLL_GRACE`.
        """

    @abstractmethod
    def settle(self, reservation: Reservation, tokens: int | None) -> None:
        """End a call. `tokens` replaces its estimate; None, if they are unknown, keeps it.

        An excess over the estimate counts from now on, also if the grant has left the window.
        """

    @abstractmethod
    def cancel(self, reservation: Reservation) -> None:
        """Undo a grant whose request was not sent."""

    @abstractmethod
    def close_buckets(self, buckets: Sequence[Bucket], seconds: float, endpoint: str = "") -> None:
        """Grant no calls to an endpoint in these buckets for some time. An earlier closure that ends later remains.

        Calls that wait for the end of a closure have no place among those that wait for the limit.
        """

    @abstractmethod
    def extend(self, reservations: Sequence[Reservation]) -> None:
        """Renew the leases of calls in progress."""

    @abstractmethod
    def withdraw(self, request: Request) -> None:
        """Delete the ticket of a call that does not wait any more."""

    @abstractmethod
    def usage(self, bucket: Bucket) -> Usage:
        """Return how full a bucket is."""
