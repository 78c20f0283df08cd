"""The actor of a change, a user or a program: stored on log lines and on enqueued activities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..validation import storable_text

MAX_ACTOR = 255  # characters; the column's size


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, or a source without users, such as a terminal."""

    name: str
    user_id: str | None = None
    """The user's primary key as text, or None if there is no user."""


_current: ContextVar[Actor | None] = ContextVar("agentexec_actor", default=None)


@contextmanager
def acting_as(actor: Any) -> Iterator[None]:
    """Attribute each enqueue, cancel and retry inside the block to `actor`: a user, a name, or None for code.

    A user is stored by primary key. REST, websockets, admin and terminal already do this; use it in your project's
    views: `with acting_as(request.user): research_company.enqueue(...)`.
    """
    token = _current.set(_actor_of(actor))
    try:
        yield
    finally:
        _current.reset(token)


def actor_name() -> str | None:
    """Return the name of the current actor, for a log line; None for code."""
    actor = _current.get()
    return actor.name if actor else None


def acting_user_id() -> str | None:
    """Return the primary key, as text, of the current user; None for code."""
    actor = _current.get()
    return actor.user_id if actor else None


def _actor_of(actor: Any) -> Actor | None:
    if isinstance(actor, str):
        return Actor(storable_text(actor)[:MAX_ACTOR])
    key = getattr(actor, "pk", None)
    if key is None:
        return None  # an anonymous user
    text = storable_text(key)[:MAX_ACTOR]
    return Actor(text, text)
