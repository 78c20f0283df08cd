"""The page that hands an approval over to a user."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from .. import approvals
from ..exceptions import InvalidOption
from ..models import Activity, Approval
from ..policy import Permission, get_policy
from ..validation import is_storable
from .access import may_decide
from .approval_base import ApprovalBase
from .approval_cards import card, name_assignees

MAX_NAME = 300  # characters


class HandoverPages(ApprovalBase):
    """The view `<id>/assign/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add the page."""
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/assign/", view(self.hand_over), name="agentexec_approval_assign"),
            *super().get_urls(),
        ]

    def hand_over(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a user, and assign the approval to them."""
        found = self.find(request, object_id)
        if not may_decide(request, found.activity):
            raise PermissionDenied
        error, name = "", request.POST.get("name", "").strip()
        if request.method == "POST" and found.is_pending:
            try:
                return self._assign(request, found, _chosen(request, found.activity, name))
            except InvalidOption as refusal:
                error = str(refusal)
        elif not found.is_pending:
            return HttpResponseRedirect(self.activity_address(found))
        (named,) = name_assignees([found])
        context = {"title": _("Hand over"), "card": card(named, may_decide=False), "name": name, "error": error}
        return self.render_page(
            request,
            "assign.html",
            {**context, "max_name": MAX_NAME, "next": self.next(request)},
            folder="approval",
            status=400 if error else 200,
        )

    def _assign(self, request: HttpRequest, found: Approval, user: Model | None) -> HttpResponse:
        refusal = self.apply(request, found, lambda each: approvals.assign(each.id, user))
        if refusal is None:
            text = _("Assigned to %(name)s.") % {"name": user} if user else _("Assigned to nobody in particular.")
            self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(self.next(request))


def _chosen(request: HttpRequest, activity: Activity, name: str) -> Model | None:
    """Return the chosen user; None for nobody. Raises `InvalidOption`.

    The text is the same for a user who does not exist and for one who may not decide, so that the page does not reveal
    which names exist.
    """
    match request.POST.get("to"):
        case "me":
            assert isinstance(request.user, Model)
            return request.user
        case "nobody":
            return None
    model: Any = get_user_model()
    user = None
    if name and len(name) <= MAX_NAME and is_storable(name):
        try:
            user = model._default_manager.get_by_natural_key(name)
        except (model.DoesNotExist, ValueError, ValidationError):  # also text that is no number or UUID
            user = None
    if user is None or not _may_decide(user, activity):
        raise InvalidOption(_("There is no user “%(name)s” who may decide this.") % {"name": name[:80]})
    assert isinstance(user, Model)
    return user


def _may_decide(user: Any, activity: Activity) -> bool:
    policy = get_policy()
    if not user.is_active or not policy.may(user, Permission.DECIDE, activity):
        return False
    return policy.visible(user, Activity.objects.filter(pk=activity.pk)).exists()
