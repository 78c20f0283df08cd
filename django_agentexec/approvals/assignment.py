"""The assignment of a pending approval to a user."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from ..activity.store import database
from ..blocking import blocking
from ..exceptions import AlreadyDecided, ApprovalNotFound, ApprovalVoid, InvalidOption
from ..models import Approval, ApprovalStatus
from ..parsing import parse_id
from ..translation import gettext as _
from ..validation import is_storable

MAX_ASSIGNEE = 255  # characters; the column's size


@blocking
def assign(id: UUID | str, to: Any) -> Approval:
    """Hand a pending approval over to a user; with None to nobody in particular.

    `to` is the user, or the text of their primary key. The inbox of the admin lists it under *Mine*. The assignment is
    a note for people: it neither permits nor forbids a decision. Returns the approval.

    Raises `AlreadyDecided`, `ApprovalVoid`, `ApprovalNotFound`, and `InvalidOption` for a text that is too long.
    """
    assignee = _assignee(to)
    try:
        approvals = Approval.objects.using(database()).filter(pk=id if isinstance(id, UUID) else parse_id(id))
    except (ValueError, TypeError, AttributeError):
        raise ApprovalNotFound(id) from None
    is_assigned = approvals.filter(status=ApprovalStatus.PENDING).update(assigned_to=assignee)
    approval = approvals.first()
    if approval is None:
        raise ApprovalNotFound(id)
    if not is_assigned:
        raise ApprovalVoid(approval) if approval.status == ApprovalStatus.VOID else AlreadyDecided(approval)
    return approval


async def aassign(id: UUID | str, to: Any) -> Approval:
    """Async version of `assign`."""
    return await sync_to_async(assign)(id, to)


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
