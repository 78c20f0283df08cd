"""The current attempt: writes inside a handler carry its fence and join the worker's group commit.

The worker sets it around a handler. It is a context variable, so tasks and threads of the handler inherit it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from django.db import connections
from django.utils.asyncio import async_unsafe

from ..exceptions import StaleAttempt
from ..models import Activity
from .store import apply_one, database
from .transitions import Operation

if TYPE_CHECKING:
    from ..models import Approval
    from .suspension import Suspended


class OwningAttempt(Protocol):
    """The interface of a running attempt to the code inside it."""

    @property
    def agent_id(self) -> UUID:
        """The id of its activity."""

    @property
    def fence(self) -> int:
        """The fence of its writes."""

    @property
    def number(self) -> int:
        """The number of the attempt, from 1."""

    @property
    def enqueued_by(self) -> str | None:
        """The user who enqueued the activity."""

    @property
    def canceled(self) -> bool:
        """Whether it has to stop."""

    @property
    def lost(self) -> Future[None]:
        """Done as soon as another worker may own the activity."""

    def write(self, operation: Operation) -> Future[Activity]:
        """Queue a write; the future returns the committed row, or raises the reason of a refusal."""

    @property
    def scope(self) -> str:
        """In a pipeline the name of the step, otherwise empty."""

    @property
    def root(self) -> OwningAttempt:
        """The outermost attempt: the activity's."""

    def suspend_for_decision(self, requests: Sequence[Approval]) -> Suspended:
        """Record that the handler waits for these new approvals, and return the exception that suspends it."""

    def add_completion_check(self, check: Callable[[], None]) -> None:
        """Call `check` when the handler has returned; an exception of `check` replaces the result."""

    def adapt(self, operation: Operation) -> Operation:
        """Return the write as `write` would queue it, for a caller that applies it directly."""


_current: ContextVar[OwningAttempt | None] = ContextVar("agentexec_attempt", default=None)


def current_attempt(agent_id: UUID | None = None) -> OwningAttempt | None:
    """Return the attempt of the calling code, or None; with `agent_id`, only if it executes that activity."""
    attempt = _current.get()
    return attempt if attempt and agent_id in (None, attempt.agent_id) else None


@contextmanager
def running(attempt: OwningAttempt) -> Iterator[None]:
    """Make `attempt` the current attempt inside the block."""
    token = _current.set(attempt)
    try:
        yield
    finally:
        _current.reset(token)


@async_unsafe("This write would block the event loop until it is committed; await its async version (a...) instead.")
def write_and_wait(attempt: OwningAttempt, operation: Operation) -> Activity:
    """Write as `attempt`, wait for the commit, and return the row; for sync code.

    Raises the reason of a refusal, and `StaleAttempt` as soon as the activity is lost: while neither the database nor
    the queue is reachable, another worker may start the activity before this write is decided. The fence then decides
    whether the write takes place.
    """
    connection = connections[database()]
    if connection.vendor == "sqlite" and connection.in_atomic_block:
        # The worker's committer would wait for the caller's transaction, and the caller for the committer.
        return apply_one(attempt.adapt(operation))
    written = attempt.write(operation)
    written_or_lost: tuple[Future[Any], ...] = (written, attempt.lost)
    wait(written_or_lost, return_when=FIRST_COMPLETED)
    if not written.done():
        raise StaleAttempt(f"Activity {attempt.agent_id} may belong to another worker: its lease has expired.")
    return written.result()
