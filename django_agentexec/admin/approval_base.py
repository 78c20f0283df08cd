"""What all pages of approvals share: who may see them, one approval by its address, and the report of a decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from .. import activity
from ..exceptions import ActivityLocked, AlreadyDecided, ApprovalNotFound, ApprovalVoid, InvalidOption
from ..models import Approval, ApprovalQuerySet
from ..parsing import parse_id
from .access import AccessAdmin, visible_approvals
from .actors import actor_names
from .addresses import next_address
from .approval_cards import status_text
from .formatting import duration

PAGE_SIZE = 50
REFUSALS = (AlreadyDecided, ApprovalVoid, ApprovalNotFound, ActivityLocked)
"""Why a decision is not applied, although it is complete."""


class ApprovalBase(AccessAdmin):
    """Approvals of visible activities, which are not edited."""

    def get_queryset(self, request: HttpRequest) -> ApprovalQuerySet:  # type: ignore[override]  # of another model
        """Return the approvals of visible activities."""
        return visible_approvals(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: approvals go with their activity, as a record of who decided."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may view activities, or that of this approval."""
        return super().has_view_permission(request, obj.activity if isinstance(obj, Approval) else None)

    def find(self, request: HttpRequest, object_id: str) -> Approval:
        """Return a visible approval. Raises `Http404`."""
        try:
            found = visible_approvals(request).select_related("activity").filter(pk=parse_id(object_id)).first()
        except ValueError:
            found = None
        if found is None or not self.has_view_permission(request, found):
            raise Http404(_("There is no approval %(id)s.") % {"id": object_id})
        return found

    def apply(self, request: HttpRequest, found: Approval, change: Callable[[Approval], Approval]) -> Exception | None:
        """Make a change as the user, and return the refusal if there is one, which the user reads.

        `InvalidOption` is left to the caller.
        """
        try:
            with activity.acting_as(request.user):
                change(found)
        except InvalidOption as refusal:
            return refusal
        except REFUSALS as refusal:
            text = refusal_text(refusal, monitors=self.has_monitor_permission(request))
            self.message_user(request, text, messages.WARNING)
            return refusal
        return None

    def activity_address(self, found: Approval) -> str:
        """Return the address of the page of its activity."""
        return reverse(f"{self.admin_site.name}:agentexec_activity_change", args=[found.activity_id])

    def next(self, request: HttpRequest) -> str:
        """Return the address of the page to which the user returns."""
        return next_address(request, reverse(f"{self.admin_site.name}:agentexec_approval_changelist"))


def refusal_text(refusal: Exception, *, monitors: bool) -> str:
    """Return why a decision was not applied."""
    if isinstance(refusal, AlreadyDecided):
        found = refusal.approval
        by = actor_names([found.decided_by], monitors=monitors).get(found.decided_by or "", "")
        ago = duration((timezone.now() - found.decided_at).total_seconds()) if found.decided_at else ""
        values = {"status": status_text(found), "by": by, "ago": ago}
        if by:
            return _("%(status)s by %(by)s %(ago)s ago. Your decision was not applied.") % values
        return _("%(status)s %(ago)s ago. Your decision was not applied.") % values
    if isinstance(refusal, ApprovalVoid):
        return _("The activity no longer waits for this decision. Your decision was not applied.")
    return str(refusal)
