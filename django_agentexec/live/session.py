"""Who is at the other end of a socket now: the session may have ended, and the user may have been demoted.

Sync; the consumers call it in the followers' threads.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

if TYPE_CHECKING:
    from ..policy import User

Scope = MutableMapping[str, Any]


def read_user(scope: Scope) -> User:
    """Return the user of the socket as they are in the database now, or an `AnonymousUser`.

    Reads the session again, if it is a session that names the user; else the user alone, as a middleware of the
    project has put them into the scope.
    """
    known: User | None = scope.get("user")
    if known is None or not known.is_authenticated:
        return AnonymousUser()
    session = scope.get("session")
    if session is not None and SESSION_KEY in session:
        request = HttpRequest()
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(session.session_key)
        return get_user(request)
    fresh: Any = known._meta.model._default_manager.filter(pk=known.pk).first()
    return fresh if fresh is not None and fresh.is_active else AnonymousUser()
