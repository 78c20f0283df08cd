"""Who is at the other end of a connection now: the session may have ended, and the user may have been deactivated.

Sync; called in the followers' threads.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

if TYPE_CHECKING:
    from ..policy import User


def is_by_session(session: Any) -> bool:
    """Whether it is a session that names the user."""
    return session is not None and SESSION_KEY in session


def reload_session(session: Any) -> Any:
    """Return the session as it is stored now; an empty one if it has ended or expired."""
    return import_module(settings.SESSION_ENGINE).SessionStore(session.session_key)


def reload_user(known: User | None, session: Any) -> User:
    """Return `known` as they are in the database now, or an `AnonymousUser` if they are not signed in any more.

    Reads the session again, if it is a session that names the user (its end and a new password end the sign-in);
    otherwise the user alone, as a middleware of the project has chosen them.
    """
    if known is None or not known.is_authenticated:
        return AnonymousUser()
    if is_by_session(session):
        request = HttpRequest()
        request.session = reload_session(session)
        user: User = get_user(request)
        return user if user.pk == known.pk else AnonymousUser()
    model: Any = getattr(getattr(known, "_meta", None), "model", None)
    fresh: Any = model._default_manager.filter(pk=known.pk).first() if model is not None else None
    return fresh if fresh is not None and fresh.is_active else AnonymousUser()
