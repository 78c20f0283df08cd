"""Authentication, origin check and permissions of websockets.

The user of a socket is read again before each check, since the session may have ended or the user may have lost their
permissions. All functions are synchronous; the consumers call them in threads.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, MutableMapping
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ... import activity
from ...exceptions import ActivityLocked, ActivityNotFound, InvalidTransition, NotAuthorized
from ...models import Activity
from ...policy import Permission, get_policy
from ...rates import count_change
from ...tasks.authorization import check_retry_authorized
from ..connections import reload_user
from ..messages import not_found_text

if TYPE_CHECKING:
    from ...policy import User

logger = logging.getLogger(__name__)

NOT_SIGNED_IN = 4401
FORBIDDEN = 4403
ACTIVITY_NOT_FOUND = 4404

Scope = MutableMapping[str, Any]
_DEFAULT_PORTS = {"http": "80", "https": "443"}
# The hosts that Django allows in development without ALLOWED_HOSTS.
_DEBUG_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


class Refused(Exception):
    """A refused connection or command: `close_code` for closing the socket, `code` for an `error` message."""

    def __init__(self, close_code: int, code: str, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.code = code


def authenticate(scope: Scope) -> User:
    """Return the socket's user, as in the database now. Raises `Refused` if they are not signed in (any more).

    A middleware of the project that signs users in without a session can set `scope["auth"]`: a row, such as REST
    framework's token, which must still exist, or a function without arguments that returns whether the sign-in is
    valid.
    """
    if "user" not in scope:
        report_missing_middleware()
    is_valid = _is_still_valid(scope.get("auth"))
    user = reload_user(scope.get("user"), scope.get("session")) if is_valid else AnonymousUser()
    if not (user.is_authenticated and user.is_active):
        raise Refused(NOT_SIGNED_IN, "not_signed_in", _("Sign in, then connect again."))
    return user


@cache
def report_missing_middleware() -> None:
    """Log, once per process, that no middleware sets the users of sockets."""
    logger.error(
        "A websocket was closed with %d (not signed in): no middleware has set scope['user']. Wrap the routes in "
        "asgi.py: AuthMiddlewareStack(URLRouter(websocket_urlpatterns)), from channels.auth.",
        NOT_SIGNED_IN,
    )


def _is_still_valid(auth: object) -> bool:
    if isinstance(auth, Model):
        return bool(type(auth)._default_manager.filter(pk=auth.pk).exists())
    return bool(auth()) if callable(auth) else True


# Origin


def is_allowed_origin(scope: Mapping[str, Any]) -> bool:
    """Return whether the handshake's `Origin` is this site's or a trusted one. False without an `Origin`.

    A browser sends its cookies with a websocket of any page, and the same-origin policy does not apply. The rule is
    that of Django's CSRF protection: the page's host is the requested host, or one of `CSRF_TRUSTED_ORIGINS`.
    """
    headers = {name.lower(): value.decode("latin1") for name, value in scope.get("headers", [])}
    origin = headers.get(b"origin", "")
    try:
        parts = urlsplit(origin)
        netloc = _with_port(parts.netloc, parts.scheme)
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        return False
    host = headers.get(b"x-forwarded-host", "") if settings.USE_X_FORWARDED_HOST else ""
    host = (host or headers.get(b"host", "")).lower()
    allowed = settings.ALLOWED_HOSTS or (_DEBUG_HOSTS if settings.DEBUG else [])
    # The name server of a foreign host may resolve it to this server (DNS rebinding).
    if validate_host(split_domain_port(host)[0], allowed) and netloc == _with_port(host, parts.scheme):
        return True
    return _is_trusted(parts)


def _is_trusted(origin: SplitResult) -> bool:
    for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS):
        if trusted.scheme == origin.scheme and is_same_domain(
            _with_port(origin.netloc, origin.scheme), _with_port(trusted.netloc.lstrip("*"), origin.scheme)
        ):
            return True
    return False


def _with_port(netloc: str, scheme: str) -> str:
    """Return a host with its port, including the default port of the scheme."""
    netloc = netloc.lower()
    has_port = netloc.rpartition("]")[2].count(":") == 1
    return netloc if has_port else f"{netloc}:{_DEFAULT_PORTS.get(scheme, '')}"


# Permissions


def sees_internals(user: User) -> bool:
    """Return whether `user` may see server internals, such as tracebacks."""
    return get_policy().may_monitor(user)


def get_audience(user: User) -> str:
    """Return the audience whose feed `user` follows. Raises `Refused` if there is none for them."""
    policy = get_policy()
    audience = policy.audience(user) if policy.may(user, Permission.VIEW) else ""
    if not audience:
        raise Refused(FORBIDDEN, "forbidden", _("You may not follow activities."))
    return audience


def check_activity(user: User, agent_id: UUID, permission: Permission) -> None:
    """Raise `Refused` unless this activity is visible to `user` and they have the permission for it."""
    policy = get_policy()
    found = policy.visible(user, Activity.objects.without_payloads()).filter(pk=agent_id).first()
    if found is None:
        raise Refused(ACTIVITY_NOT_FOUND, "not_found", not_found_text(agent_id))
    if not policy.may(user, permission, found):
        text = _("You do not have the permission %(permission)s for activity %(agent_id)s.")
        raise Refused(FORBIDDEN, "forbidden", text % {"permission": permission, "agent_id": agent_id})


def filter_visible(user: User, agent_ids: Collection[UUID]) -> set[UUID]:
    """Return the activities among `agent_ids` that `user` may view."""
    policy = get_policy()
    found = policy.visible(user, Activity.objects.without_payloads()).filter(pk__in=agent_ids)
    return {row.agent_id for row in found if policy.may(user, Permission.VIEW, row)}


def run_action(user: User, agent_id: UUID, permission: Permission) -> None:
    """Cancel or retry the activity, according to the permission. Raises `Refused`, also if its state forbids it.

    Counts towards the rate of changes, as over REST.
    """
    if (seconds := count_change(user.pk)) is not None:
        pause = ceil(seconds)
        text = ngettext(
            "Too many changes; try again in %(seconds)d second.",
            "Too many changes; try again in %(seconds)d seconds.",
            pause,
        )
        raise Refused(FORBIDDEN, "too_many", text % {"seconds": pause})
    check_activity(user, agent_id, permission)
    try:
        with activity.acting_as(user):
            if permission is Permission.CANCEL:
                activity.cancel(agent_id)
            else:
                check_retry_authorized(user, agent_id)
                activity.retry(agent_id)
    except NotAuthorized as error:
        raise Refused(FORBIDDEN, "forbidden", str(error)) from error
    except (InvalidTransition, ActivityLocked) as error:
        raise Refused(FORBIDDEN, "conflict", str(error)) from error
    except ActivityNotFound as error:
        raise Refused(ACTIVITY_NOT_FOUND, "not_found", str(error)) from error
