"""The gate before a call of a model: it waits for the limits, in the worker's slot or suspended.

A wait of more than `MODEL_LIMIT_WAIT` seconds suspends an activity whose calls are recorded. Other calls wait in their
slot, since their activity would make all earlier calls again. If Redis is unavailable, calls wait, too: the limits hold
also then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast
from uuid import uuid4

from ..calls.halting import Halted
from ..conf import conf
from ..current import current_attempt
from ..exceptions import QueueMisconfigured, QueueUnavailable
from ..forks import reset_after_fork
from ..logs import ThrottledLogger
from .base import LimitStore, Request, Reservation, Wait
from .bookkeeping import bookkeeping
from .headers import granted
from .rules import Bucket, buckets_of, closest, limits, tenant_of
from .stores import get_store

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)

MIN_PAUSE, MAX_PAUSE = 0.02, 1.0  # seconds between two requests for a grant; tokens may be free earlier than expected
OUTAGE_WAIT = 10.0  # seconds after which a call tries again while Redis is unavailable
MAX_LATE_GRANTS = 5
"""A process whose event loop is blocked receives grants too late; the next grant is used in any case."""
MAX_CLOSED = 3_600.0  # seconds for which an endpoint can close a bucket for calls to itself

THREADS = 4
"""Threads for round trips, beside those of the worker, which sync handlers and tools may occupy."""

T = TypeVar("T")
Halt = Callable[[float], Awaitable[Halted]]
"""Suspends the activity for these seconds, and returns what to raise."""
WhileWaiting = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Grant:
    """The right to make one call now."""

    store: LimitStore
    reservation: Reservation
    tokens: int | None = None
    """The tokens used: set them before the end of the block. None: unknown."""

    def settle(self, tokens: int | None) -> None:
        """End the call. `tokens` is None if they are unknown, and 0 if the provider has rejected the request."""
        bookkeeping.end(self.reservation, partial(self.store.settle, self.reservation, tokens))

    def cancel(self) -> None:
        """Give the right back, since no request was sent."""
        bookkeeping.end(self.reservation, partial(self.store.cancel, self.reservation))

    async def close(self, seconds: float) -> None:
        """Close the closest limit, in the whole fleet, for calls to the endpoint that has refused the call."""
        request, seconds = self.reservation.request, min(max(seconds, 0.0), MAX_CLOSED)
        step = partial(self.store.close_buckets, closest(request.buckets), seconds, request.endpoint)
        try:
            await _in_thread(step)
        except QueueUnavailable:
            bookkeeping.do(step)


def buckets_for(model: str, provider: str, metadata: Mapping[str, Any] | None = None) -> tuple[Bucket, ...]:
    """Return the buckets of a call; none if no limit applies. `metadata` is by default that of the activity."""
    if not conf.MODEL_LIMITS:
        return ()
    found = limits().of(model, provider)
    return buckets_of(found, metadata_of() if metadata is None else metadata) if found else ()


def metadata_of() -> Mapping[str, Any]:
    """Return the metadata of the activity that calls; empty outside of activities."""
    attempt = current_attempt()
    return attempt.root.metadata if attempt is not None else {}


async def pass_gate(
    buckets: tuple[Bucket, ...],
    tokens: int,
    *,
    endpoint: str = "",
    ticket: str = "",
    tenant: str | None = None,
    halt: Halt | None = None,
    while_waiting: WhileWaiting | None = None,
) -> Grant:
    """Wait until the limits permit a call, and return the grant, which the caller ends by `settle`.

    `endpoint` is the host that is called, for which alone a refusal closes the limits. `ticket` is the name of the call
    in all attempts; by default it has none. With `halt`, a long wait suspends the
    activity: raises `Halted`. `while_waiting` is called before each further request for a grant. Raises
    `QueueMisconfigured` if the server refuses the scripts for good.
    """
    tenant = tenant_of(metadata_of()) if tenant is None else tenant
    request = Request(buckets, tokens, ticket or uuid4().hex, tenant, endpoint)
    store = get_store()
    try:
        return await _wait(store, request, halt, while_waiting)
    except Halted:
        raise  # it keeps its place
    except (Exception, asyncio.CancelledError):
        bookkeeping.do(partial(store.withdraw, request))
        raise


async def _wait(store: LimitStore, request: Request, halt: Halt | None, while_waiting: WhileWaiting | None) -> Grant:
    started, late = time.monotonic(), 0
    while True:
        asked = time.monotonic()
        patience = max(0.0, conf.MODEL_LIMIT_WAIT - (asked - started)) if halt is not None else None
        reply = await _ask(store, request, patience)
        if isinstance(reply, Reservation):
            grant = Grant(store, reply)
            if late >= MAX_LATE_GRANTS or time.monotonic() - asked <= _max_delay(request):
                bookkeeping.hold(store, reply)
                return grant
            late += 1
            grant.cancel()
            continue
        if halt is not None and patience is not None and reply.seconds > patience:
            raise await halt(reply.seconds)
        if while_waiting is not None:
            await while_waiting()
        await asyncio.sleep(min(max(reply.seconds, MIN_PAUSE), MAX_PAUSE))


async def _ask(store: LimitStore, request: Request, patience: float | None) -> Reservation | Wait:
    reply = asyncio.ensure_future(_in_thread(partial(store.reserve, request, patience)))
    try:
        return await asyncio.shield(reply)
    except asyncio.CancelledError:
        reply.add_done_callback(partial(_give_back, store))  # the request cannot be stopped
        raise
    except QueueMisconfigured:
        raise
    except QueueUnavailable as error:
        _log.warn("Calls of models with limits wait, since the limits cannot be read.", error)
        return Wait(OUTAGE_WAIT)


def _give_back(store: LimitStore, reply: asyncio.Future[Reservation | Wait]) -> None:
    """Cancel a grant that has arrived after the cancellation of its call."""
    if not reply.cancelled() and reply.exception() is None and isinstance(reply.result(), Reservation):
        Grant(store, cast(Reservation, reply.result())).cancel()


_threads: ThreadPoolExecutor | None = None


async def _in_thread(function: Callable[[], T]) -> T:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(THREADS, thread_name_prefix="agentexec-limit")
        reset_after_fork(_forget_threads)
    return await asyncio.get_running_loop().run_in_executor(_threads, function)


def _forget_threads() -> None:
    global _threads
    _threads = None


def _max_delay(request: Request) -> float:
    """Return the seconds from the request for a grant to its arrival here after which the call would be too late."""
    margins = [bucket.limit.margin for bucket in request.buckets if bucket.limit.rpm or bucket.limit.tpm]
    return min(margins, default=0.0) / 2 or float("inf")


@asynccontextmanager
async def model_limit(model: str, *, provider: str = "", tokens: int = 0) -> AsyncIterator[Grant | None]:
    """Make a call of a model under its limits, in code that runs no agents of the OpenAI Agents SDK.

        async with model_limit("gpt-5", provider="openai", tokens=estimate) as grant:
            answer = await client.responses.create(...)
            grant.tokens = answer.usage.total_tokens

    The grant is None if no limit applies. The call waits in its slot.
    """
    buckets = buckets_for(model, provider)
    if not buckets:
        yield None
        return
    grant = await pass_gate(buckets, tokens, endpoint=provider)
    try:
        with granted(grant):
            yield grant
    finally:
        grant.settle(grant.tokens)
