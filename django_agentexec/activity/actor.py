"""Who causes a change: noted on the lines that it adds to the log, and on the activities that it enqueues."""

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
    """A user, or a place without users, such as a terminal."""

    name: str
    user_id: str | None = None
    """The user's primary key as text, or None where there is no user."""


_current: ContextVar[Actor | None] = ContextVar("agentexec_actor", default=None)


@contextmanager
def acting_as(who: Any) -> Iterator[None]:
    """Attribute what is enqueued, canceled and retried inside the block to `who`: a user, a name, or None for code.

    A user is noted by the primary key. REST, websockets, admin and terminal do this themselves; use it in views of
    your own: `with acting_as(request.user): research_company.enqueue(...)`.
    """
    token = _current.set(_actor(who))
    try:
        yield
    finally:
        _current.reset(token)


def actor_name() -> str | None:
    """Return who acts, for a line of the log; None for code."""
    actor = _current.get()
    return actor.name if actor else None


def acting_user_id() -> str | None:
    """Return the primary key, as text, of the user who acts; None for code."""
    actor = _current.get()
    return actor.user_id if actor else None


def _actor(who: Any) -> Actor | None:
    if isinstance(who, str):
        return Actor(storable_text(who)[:MAX_ACTOR])
    key = getattr(who, "pk", None)
    if key is None:
        return None  # nobody is signed in
    text = storable_text(key)[:MAX_ACTOR]
    return Actor(text, text)
