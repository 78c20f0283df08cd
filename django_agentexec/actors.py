"""The current actor: the user or program that log lines, enqueued activities, decisions and pauses name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .validation import storable_text

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
