"""What a socket's user may follow and do: every question goes to the project's policy, with a user just read.

Sync; the consumers call it in the followers' threads.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from uuid import UUID

from ... import activity
from ...exceptions import ActivityLocked, ActivityNotFound, InvalidTransition, NotAuthorized
from ...models import Activity
from ...policy import Permission, get_policy
from ...tasks.authorization import check_retry_authorized
from .session import Scope, read_user

if TYPE_CHECKING:
    from ...policy import User

NOT_SIGNED_IN = 4401
FORBIDDEN = 4403
NO_SUCH_ACTIVITY = 4404


class Refused(Exception):
    """The user may not: `close_code` ends a socket that lives from it, `code` is the name in an `error` message."""

    def __init__(self, close_code: int, code: str, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.code = code


def signed_in(scope: Scope) -> User:
    """Return the socket's user. Raises `Refused` if nobody is signed in (any more)."""
    user = read_user(scope)
    if not (user.is_authenticated and user.is_active):
        raise Refused(NOT_SIGNED_IN, "not_signed_in", "Sign in, then connect again.")
    return user


def shows_servers(user: User) -> bool:
    """Whether `user` may see what tells of the servers, such as tracebacks."""
    return get_policy().may_monitor(user)


def feed_of(user: User) -> str:
    """Return the audience whose feed `user` follows. Raises `Refused` if there is none for them."""
    policy = get_policy()
    audience = policy.audience(user) if policy.may(user, Permission.VIEW) else ""
    if not audience:
        raise Refused(FORBIDDEN, "forbidden", "You may not follow activities.")
    return audience


def check_activity(user: User, agent_id: UUID, permission: Permission) -> None:
    """Raise `Refused` unless `user` sees this activity, and has the permission for it."""
    policy = get_policy()
    found = policy.visible(user, Activity.objects.without_payloads()).filter(pk=agent_id).first()
    if found is None:
        raise Refused(NO_SUCH_ACTIVITY, "not_found", f"There is no activity {agent_id}.")
    if not policy.may(user, permission, found):
        raise Refused(FORBIDDEN, "forbidden", f"You have no permission {permission} for activity {agent_id}.")


def still_visible(user: User, agent_ids: Collection[UUID]) -> set[UUID]:
    """Return those of these activities that `user` may view."""
    policy = get_policy()
    found = policy.visible(user, Activity.objects.without_payloads()).filter(pk__in=agent_ids)
    return {row.agent_id for row in found if policy.may(user, Permission.VIEW, row)}


def steer(user: User, agent_id: UUID, permission: Permission) -> None:
    """Cancel or retry the activity, as the permission says. Raises `Refused`, also where its state forbids it."""
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
        raise Refused(NO_SUCH_ACTIVITY, "not_found", str(error)) from error
