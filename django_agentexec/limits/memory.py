"""The limits in the memory of one process, for tests of projects and as a model of the scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..conf import conf
from .base import (
    DURATION_WEIGHT,
    MIN_SLOT_WAIT,
    POLL_GRACE,
    SLOT_WAIT,
    SUSPENDED_GRACE,
    LimitStore,
    Request,
    Reservation,
    Usage,
    Wait,
)
from .rules import Bucket, Limit


@dataclass(slots=True)
class _Ticket:
    turn: int
    number: int
    tokens: int
    expires: float


@dataclass(slots=True)
class _State:
    """The state of a bucket; the names are those of `lua/prelude.lua`."""

    requests: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, tuple[float, int]] = field(default_factory=dict)
    open: dict[str, float] = field(default_factory=dict)
    tickets: dict[str, _Ticket] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    blocked: dict[str, float] = field(default_factory=dict)
    """Calls that wait for the end of a closure, by the time at which they are forgotten."""
    closed_until: dict[str, float] = field(default_factory=dict)
    """By endpoint."""
    number: int = 0
    duration: float | None = None

    @property
    def total(self) -> int:
        return sum(amount for _, amount in self.tokens.values())

    def forget_old(self, limit: Limit, now: float) -> None:
        past = now - limit.span
        self.requests = {name: at for name, at in self.requests.items() if at > past}
        self.tokens = {name: (at, amount) for name, (at, amount) in self.tokens.items() if at > past}
        self.open = {name: until for name, until in self.open.items() if until > now}
        self.tickets = {name: ticket for name, ticket in self.tickets.items() if ticket.expires > now}
        self.blocked = {name: until for name, until in self.blocked.items() if until > now}
        self.closed_until = {name: until for name, until in self.closed_until.items() if until > now}

    def note_duration(self, seconds: float) -> None:
        average = seconds if self.duration is None else self.duration
        self.duration = average + DURATION_WEIGHT * (seconds - average)

    def next_turn(self, tenant: str) -> int:
        if not self.tickets:
            self.turns.clear()
            return 0
        current = min(ticket.turn for ticket in self.tickets.values())
        return max(current, self.turns[tenant] + 1) if tenant in self.turns else current

    def ahead(self, request: Request) -> list[_Ticket]:
        own = self.tickets.get(request.ticket)
        if own is None:
            turn = self.next_turn(request.tenant)
            return [ticket for ticket in self.tickets.values() if ticket.turn <= turn]
        place = own.turn, own.number
        return [ticket for ticket in self.tickets.values() if (ticket.turn, ticket.number) < place]


class MemoryLimits(LimitStore):
    """Limits of this process. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}

    def reserve(self, request: Request, patience: float | None = None) -> Reservation | Wait:
        with self._lock:
            now = self._clock()
            if (closed := self._closed_for(request, now)) > 0:
                self._block(request, now, closed, patience)
                return Wait(closed)
            waits = [self._wait_for(self._state(bucket), bucket.limit, request, now) for bucket in request.buckets]
            longest = max(waits, default=0.0)
            refused = next((number for number, wait in enumerate(waits) if wait > 0), None)
            reservation = Reservation(request)
            for number, bucket in enumerate(request.buckets):
                state = self._state(bucket)
                if refused is None:
                    self._grant(state, bucket.limit, reservation, now)
                elif number == refused or (number < refused and request.ticket in state.tickets):
                    is_suspended = patience is not None and longest > patience
                    self._enqueue(
                        state, bucket.limit, request, now + (longest + SUSPENDED_GRACE if is_suspended else POLL_GRACE)
                    )
                else:
                    state.tickets.pop(request.ticket, None)
            return reservation if refused is None else Wait(longest)

    def settle(self, reservation: Reservation, tokens: int | None) -> None:
        with self._lock:
            now = self._clock()
            for bucket in reservation.request.buckets:
                state, limit = self._state(bucket), bucket.limit
                if state.open.pop(reservation.id, None) is not None:
                    state.note_duration(time.monotonic() - reservation.granted_at)
                if tokens is None or not limit.tpm:
                    continue
                excess = tokens - min(reservation.request.tokens, limit.tpm)
                if excess > 0:
                    state.tokens[f"{reservation.id}:excess"] = now, excess
                elif reservation.id in state.tokens:
                    state.tokens[reservation.id] = state.tokens[reservation.id][0], tokens

    def cancel(self, reservation: Reservation) -> None:
        with self._lock:
            for bucket in reservation.request.buckets:
                state = self._state(bucket)
                state.open.pop(reservation.id, None)
                state.requests.pop(reservation.id, None)
                state.tokens.pop(reservation.id, None)

    def close_buckets(self, buckets: Sequence[Bucket], seconds: float, endpoint: str = "") -> None:
        with self._lock:
            for bucket in buckets:
                closures = self._state(bucket).closed_until
                closures[endpoint] = max(closures.get(endpoint, 0.0), self._clock() + seconds)

    def extend(self, reservations: Sequence[Reservation]) -> None:
        with self._lock:
            for reservation in reservations:
                for bucket in reservation.request.buckets:
                    if bucket.limit.concurrency:
                        self._state(bucket).open[reservation.id] = self._clock() + conf.LEASE

    def withdraw(self, request: Request) -> None:
        with self._lock:
            for bucket in request.buckets:
                self._state(bucket).tickets.pop(request.ticket, None)
                self._state(bucket).blocked.pop(request.ticket, None)

    def usage(self, bucket: Bucket) -> Usage:
        with self._lock:
            now, state = self._clock(), self._state(bucket)
            state.forget_old(bucket.limit, now)
            closed = max(0.0, max(state.closed_until.values(), default=0.0) - now)
            waiting = len(state.tickets) + len(state.blocked)
            return Usage(len(state.requests), state.total, len(state.open), waiting, closed)

    def _state(self, bucket: Bucket) -> _State:
        return self._states.setdefault(bucket.name, _State())

    def _closed_for(self, request: Request, now: float) -> float:
        closures = [self._state(bucket).closed_until.get(request.endpoint, 0.0) for bucket in request.buckets]
        return max(closures, default=0.0) - now

    def _block(self, request: Request, now: float, closed: float, patience: float | None) -> None:
        is_suspended = patience is not None and closed > patience
        for state in map(self._state, request.buckets):
            state.tickets.pop(request.ticket, None)
            if state.closed_until.get(request.endpoint, 0.0) > now:
                state.blocked[request.ticket] = now + (closed + SUSPENDED_GRACE if is_suspended else POLL_GRACE)

    def _wait_for(self, state: _State, limit: Limit, request: Request, now: float) -> float:
        state.forget_old(limit, now)
        ahead = state.ahead(request)
        wait = self._wait_for_request(state, limit, len(ahead), now) if limit.rpm else 0.0
        if limit.tpm:
            excess = state.total + sum(ticket.tokens for ticket in ahead) + _need(request, limit) - limit.tpm
            wait = max(wait, self._wait_for_tokens(state, limit, excess, now))
        if limit.concurrency and (excess := len(state.open) + len(ahead) + 1 - limit.concurrency) > 0:
            duration = SLOT_WAIT if state.duration is None else state.duration
            wait = max(wait, MIN_SLOT_WAIT, duration * excess / limit.concurrency)
        return wait

    def _wait_for_request(self, state: _State, limit: Limit, ahead: int, now: float) -> float:
        used = len(state.requests)
        excess = used + ahead + 1 - limit.rpm
        if excess > used:
            return limit.span * (1 + (excess - used - 1) // limit.rpm)
        return sorted(state.requests.values())[excess - 1] + limit.span - now if excess > 0 else 0.0

    def _wait_for_tokens(self, state: _State, limit: Limit, excess: int, now: float) -> float:
        if excess <= 0:
            return 0.0
        for at, amount in sorted(state.tokens.values()):
            excess -= amount
            if excess <= 0:
                return at + limit.span - now
        return limit.span * (1 + (excess - 1) // limit.tpm)

    def _grant(self, state: _State, limit: Limit, reservation: Reservation, now: float) -> None:
        request = reservation.request
        if limit.rpm:
            state.requests[reservation.id] = now
        if limit.tpm:
            state.tokens[reservation.id] = now, _need(request, limit)
        if limit.concurrency:
            state.open[reservation.id] = now + conf.LEASE
        state.blocked.pop(request.ticket, None)
        if request.ticket in state.tickets:
            del state.tickets[request.ticket]
        elif state.tickets:
            state.turns[request.tenant] = state.next_turn(request.tenant)

    def _enqueue(self, state: _State, limit: Limit, request: Request, expires: float) -> None:
        own = state.tickets.get(request.ticket)
        state.blocked.pop(request.ticket, None)
        if own is None:
            turn = state.next_turn(request.tenant)
            state.number += 1
            own = state.tickets[request.ticket] = _Ticket(turn, state.number, 0, expires)
            state.turns[request.tenant] = turn
        own.tokens, own.expires = _need(request, limit), expires


def _need(request: Request, limit: Limit) -> int:
    return min(request.tokens, limit.tpm) if limit.tpm else request.tokens
