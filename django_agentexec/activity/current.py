"""The attempt that the present code belongs to, so that its writes carry the fence and join the group commit.

Set by the worker around a handler; a context variable, so it follows tasks and threads the handler starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from uuid import UUID

from django.db import connections
from django.utils.asyncio import async_unsafe

from ..exceptions import StaleAttempt
from ..models import Activity
from .store import apply_one, database
from .transitions import Operation


class OwningAttempt(Protocol):
    """What a running attempt offers to the code inside it."""

    @property
    def agent_id(self) -> UUID:
        """The activity it runs."""

    @property
    def fence(self) -> int:
        """The fence that its writes carry."""

    @property
    def number(self) -> int:
        """Which attempt of the activity it is, from 1."""

    @property
    def enqueued_by(self) -> str | None:
        """The user who enqueued the activity."""

    @property
    def canceled(self) -> bool:
        """Whether it is to stop."""

    @property
    def lost(self) -> Future[None]:
        """Ends when the activity has to be taken for somebody else's."""

    def write(self, operation: Operation) -> Future[Activity]:
        """Hand in a write; the future ends when it is committed, or raises why it was refused."""

    def add_completion_check(self, check: Callable[[], None]) -> None:
        """Call `check` when the handler has returned; what it raises is the outcome instead of the result."""

    def adapt(self, operation: Operation) -> Operation:
        """Return the write as it is handed in, for those that go another way."""


_current: ContextVar[OwningAttempt | None] = ContextVar("agentexec_attempt", default=None)


def current_attempt(agent_id: UUID | None = None) -> OwningAttempt | None:
    """Return the attempt that the caller belongs to, if there is one (and if it runs `agent_id`)."""
    attempt = _current.get()
    return attempt if attempt and agent_id in (None, attempt.agent_id) else None


@contextmanager
def running(attempt: OwningAttempt) -> Iterator[None]:
    """Make `attempt` the current one inside the block."""
    token = _current.set(attempt)
    try:
        yield
    finally:
        _current.reset(token)


@async_unsafe("This write would block the event loop until it is committed; await its a... form instead.")
def write_and_wait(attempt: OwningAttempt, operation: Operation) -> Activity:
    """Write as `attempt`, and return the committed row; for sync code.

    Raises why it was refused, and `StaleAttempt` as soon as the activity is lost: while neither database nor queue
    can be reached, another worker may begin it before this one hears of its write. Whether that happens is then for
    its fence to say.
    """
    connection = connections[database()]
    if connection.vendor == "sqlite" and connection.in_atomic_block:
        # The worker's writer would wait for the caller's transaction, and the caller for the writer.
        return apply_one(attempt.adapt(operation))
    written = attempt.write(operation)
    either: tuple[Future[Any], ...] = (written, attempt.lost)
    wait(either, return_when=FIRST_COMPLETED)
    if not written.done():
        raise StaleAttempt(f"Activity {attempt.agent_id} may belong to another worker by now; its lease has run out.")
    return written.result()
