"""The current attempt and the current actor: context variables, which tasks and threads inherit.

The worker sets the attempt around a handler: writes inside it carry its fence and join the worker's group commit. The
actor is the user or program that log lines, enqueued activities, decisions and pauses name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID

from .validation import storable_text

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import Model

    from .activity.suspension import Suspended
    from .activity.transitions import Operation
    from .models import Activity, Approval, WaitingFor


MAX_ACTOR = 255  # characters; the column's size


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, or a source without users, such as a terminal."""

    name: str
    user_id: str | None = None
    """The user's primary key as text, or None if there is no user."""


_actor: ContextVar[Actor | None] = ContextVar("agentexec_actor", default=None)


@contextmanager
def acting_as(actor: Any) -> Iterator[None]:
    """Attribute each enqueue, cancel and retry inside the block to `actor`: a user, a name, or None for code.

    A user is stored by primary key. REST, websockets, admin and terminal already do this; use it in your project's
    views: `with acting_as(request.user): research_company.enqueue(...)`.
    """
    token = _actor.set(as_actor(actor))
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> Actor | None:
    """Return the current actor; None for code."""
    return _actor.get()


def actor_name() -> str | None:
    """Return the name of the current actor, for a log line; None for code."""
    actor = _actor.get()
    return actor.name if actor else None


def as_actor(actor: Any) -> Actor | None:
    """Return the actor of a user or a name; None for an anonymous user and for None."""
    if isinstance(actor, str):
        return Actor(storable_text(actor)[:MAX_ACTOR])
    key = getattr(actor, "pk", None)
    if key is None:
        return None  # an anonymous user
    text = storable_text(key)[:MAX_ACTOR]
    return Actor(text, text)


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
    def locals(self) -> dict[Any, Any]:
        """Values that live as long as the attempt, by name."""

    @property
    def records_calls(self) -> bool:
        """Whether runners of agents record calls."""

    @property
    def session_id(self) -> str | None:
        """The session id of the activity's conversation."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of its activity."""

    @property
    def scope(self) -> str:
        """In a pipeline the name of the step, otherwise empty."""

    @property
    def root(self) -> OwningAttempt:
        """The outermost attempt: the activity's."""

    def suspend_for_decision(self, requests: Sequence[Approval]) -> Suspended:
        """Record that the handler waits for these new approvals, and return the exception that suspends it."""

    def suspend_until(
        self,
        reason: WaitingFor,
        until: datetime | None = None,
        *,
        message: str = "",
        public_message: str = "",
        record: Model | None = None,
    ) -> Suspended:
        """Record that the handler waits for a condition, and return the exception that suspends it."""

    def add_completion_check(self, check: Callable[[], None]) -> None:
        """Call `check` when the handler has returned; an exception of `check` replaces the result."""

    def adapt(self, operation: Operation) -> Operation:
        """Return the write as `write` would queue it, for a caller that applies it directly."""


_attempt: ContextVar[OwningAttempt | None] = ContextVar("agentexec_attempt", default=None)


def current_attempt(agent_id: UUID | None = None) -> OwningAttempt | None:
    """Return the attempt of the calling code, or None; with `agent_id`, only if it executes that activity."""
    attempt = _attempt.get()
    return attempt if attempt and agent_id in (None, attempt.agent_id) else None


@contextmanager
def running(attempt: OwningAttempt) -> Iterator[None]:
    """Make `attempt` the current attempt inside the block."""
    token = _attempt.set(attempt)
    try:
        yield
    finally:
        _attempt.reset(token)


class Origin(NamedTuple):
    """The code that enqueues an activity."""

    parent_id: UUID | None
    """The activity whose handler is running."""
    user_id: str | None
    """The user on whose behalf the code runs."""
    traceparent: str
    """The active span, in the form of the W3C trace context; empty if there is none."""


def origin() -> Origin:
    """Return the origin of an activity that is enqueued now."""
    attempt, actor = _attempt.get(), current_actor()
    if attempt is not None:
        return Origin(attempt.agent_id, attempt.enqueued_by, current_traceparent())
    return Origin(None, actor.user_id if actor else None, current_traceparent())


def current_traceparent() -> str:
    """Return the traceparent of the active span, or "" if there is none."""
    trace = sys.modules.get("opentelemetry.trace")  # not imported: the process has no spans
    if trace is None:
        return ""
    span = trace.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else ""
