"""Who is at the other end of a socket now: the session may have ended, and the user may have been demoted.

Sync; the consumers call it in the followers' threads.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import Model

from ..credentials import reload_user

if TYPE_CHECKING:
    from ...policy import User

Scope = MutableMapping[str, Any]


def read_user(scope: Scope) -> User:
    """Return the user of the socket as they are in the database now, or an `AnonymousUser`.

    A middleware of the project that signs users in without a session can set `scope["auth"]`: a row, such as REST
    framework's token, which must still exist, or a function that takes nothing and returns whether the sign-in holds.
    """
    if not _still_holds(scope.get("auth")):
        return AnonymousUser()
    return reload_user(scope.get("user"), scope.get("session"))


def _still_holds(auth: object) -> bool:
    if isinstance(auth, Model):
        return bool(type(auth)._default_manager.filter(pk=auth.pk).exists())
    return bool(auth()) if callable(auth) else True
