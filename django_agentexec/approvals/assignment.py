"""The assignment of a pending approval to a user."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction

from ..activity.store import apply, database
from ..blocking import blocking
from ..exceptions import AlreadyDecided, ApprovalVoid, InvalidOption
from ..models import Approval, ApprovalStatus
from ..translation import gettext as _
from ..validation import is_storable
from .decisions import locked
from .log import LogAssignment

MAX_ASSIGNEE = 255  # characters; the column's size


@blocking
def assign(id: UUID | str, to: Any) -> Approval:
    """Hand a pending approval over to a user; with None to nobody in particular.

    `to` is the user, or the text of their primary key. The inbox of the admin lists it under *Mine*. The assignment is
    a note for people: it neither permits nor forbids a decision. A line in the log of the activity names the user, and
    the actor of `activity.acting_as`. Returns the approval.

    Raises `AlreadyDecided`, `ApprovalVoid`, `ApprovalNotFound`, and `InvalidOption` for a text that is too long.
    """
    assignee = _assignee(to)
    with transaction.atomic(using=database()):
        approval = locked(id)
        if not approval.is_pending:
            raise ApprovalVoid(approval) if approval.status == ApprovalStatus.VOID else AlreadyDecided(approval)
        if approval.assigned_to != assignee:
            approval.assigned_to = assignee
            approval.save(update_fields=["assigned_to"])
            name = "" if assignee is None else _name(to)
            apply([LogAssignment(agent_id=approval.activity_id, tool=approval.tool, assignee=name)])
    return approval


async def aassign(id: UUID | str, to: Any) -> Approval:
    """Async version of `assign`."""
    return await sync_to_async(assign)(id, to)


def _name(to: Any) -> str:
    """Return the user name of an assignee, or the text of their primary key."""
    return str(to.get_username() if hasattr(to, "get_username") else to)


def _assignee(to: Any) -> str | None:
    if to is None:
        return None
    key = getattr(to, "pk", to)  # None of an anonymous user
    text = "" if key is None else str(key)
    if not text or len(text) > MAX_ASSIGNEE or not is_storable(text):
        raise InvalidOption(
            _("The assignee %(to)s must be a user, or the text of a primary key of 1 to %(most)s characters.")
            % {"to": repr(text)[:80], "most": MAX_ASSIGNEE}
        )
    return text
