"""The admin of approvals: an inbox of pending decisions, and the decided and expired ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from .. import approvals
from ..exceptions import InvalidOption
from ..models import Approval, ApprovalQuerySet, ApprovalStatus
from .access import MAX_COUNTED, may_decide, visible_approvals
from .addresses import socket_path
from .approval_base import PAGE_SIZE
from .approval_bulk import BulkDecisions
from .approval_cards import card, lines, name_assignees, status_text
from .argument_forms import arguments_of, can_change, fields_of
from .handover import HandoverPages
from .pagination import row_page
from .texts import script_texts

TABS = {
    "waiting": (ApprovalStatus.PENDING,),
    "mine": (ApprovalStatus.PENDING,),
    "decided": (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED),
    "expired": (ApprovalStatus.EXPIRED, ApprovalStatus.VOID),
}
ORDERS = {"expiry": (), "oldest": ("id",), "newest": ("-id",), "tool": ("tool", "id")}
"""Orders of pending approvals. The first is that of `pending`; ids grow with time."""


class ApprovalAdmin(BulkDecisions, HandoverPages):
    """Approvals: read-only but for the decision and the assignment."""

    def get_urls(self) -> list[URLPattern]:
        """Add the decision about one approval, and the form of its arguments."""
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/decide/", view(self.decide), name="agentexec_approval_decide"),
            path("<path:object_id>/arguments/", view(self.change_arguments), name="agentexec_approval_arguments"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the inbox; a POST decides the selected calls of one tool, after a confirmation."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self.decide_many(request)
        tab = request.GET.get("tab", "waiting")
        tab = tab if tab in TABS else "waiting"
        order = request.GET.get("order", "expiry")
        order = order if order in ORDERS else "expiry"
        is_open = TABS[tab] == (ApprovalStatus.PENDING,)
        page = row_page(request, _found(request, tab, order), PAGE_SIZE)
        return self.render_page(
            request,
            "inbox.html",
            {
                "title": _("Approvals"),
                "tab": tab,
                "is_open": is_open,
                "tabs": [(name, label, name == tab) for name, label in _tab_labels().items()],
                "mine": _count_of_mine(request),
                "order": order,
                "orders": _order_labels().items(),
                "cards": [
                    card(each, may_decide=may_decide(request, each.activity)) for each in name_assignees(page.rows)
                ]
                if is_open
                else [],
                "lines": [] if is_open else lines(page.rows, monitors=self.has_monitor_permission(request)),
                "page": page.number,
                "has_older": page.has_more,
                "next": request.get_full_path(),
                "socket": socket_path(),
                "texts": script_texts(),
                **(extra_context or {}),
            },
            folder="approval",
        )

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the activity of an approval, whose page has its card."""
        if object_id is None:
            raise PermissionDenied
        return HttpResponseRedirect(self.activity_address(self.find(request, object_id)))

    def decide(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Decide one approval, and return to the page with its card."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        found = self.find(request, object_id)
        if not may_decide(request, found.activity):
            raise PermissionDenied
        refusal = self._decide(request, found, lambda each: _decision(request)(each))
        if isinstance(refusal, InvalidOption):
            self.message_user(request, str(refusal), messages.WARNING)
        return HttpResponseRedirect(self.next(request))

    def change_arguments(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for other arguments, and approve the call with them."""
        found = self.find(request, object_id)
        if not may_decide(request, found.activity):
            raise PermissionDenied
        if not (found.is_pending and can_change(found)):
            return HttpResponseRedirect(self.activity_address(found))
        fields, errors = fields_of(found), list[str]()
        if request.method == "POST":
            arguments = arguments_of(found, fields, request.POST.dict())
            if not any(field.error for field in fields):
                reason = request.POST.get("reason", "")
                refusal = self._decide(
                    request, found, lambda each: approvals.approve(each.id, reason=reason, arguments=arguments)
                )
                if not isinstance(refusal, InvalidOption):
                    return HttpResponseRedirect(self.next(request))
                errors.append(str(refusal))
        return self.render_page(
            request,
            "arguments.html",
            {
                "title": _("Change arguments"),
                "may_monitor": self.has_monitor_permission(request),
                "card": card(found, may_decide=False),
                "fields": fields,
                "errors": errors,
                "reason": request.POST.get("reason", ""),
                "next": self.next(request),
            },
            folder="approval",
            status=400 if request.method == "POST" else 200,
        )

    def _decide(
        self, request: HttpRequest, found: Approval, decision: Callable[[Approval], Approval]
    ) -> Exception | None:
        """Decide, and report it to the user; return the refusal if there is one. `InvalidOption` is not reported."""
        decided: list[Approval] = []

        def change(each: Approval) -> Approval:
            decided.append(decision(each))
            return decided[0]

        refusal = self.apply(request, found, change)
        if refusal is None:
            # Not the tool first: Django's template would capitalize it.
            self.message_user(request, f"{status_text(decided[0])}: {found.tool}", messages.SUCCESS)
        return refusal


def _found(request: HttpRequest, tab: str, order: str) -> ApprovalQuerySet:
    found = visible_approvals(request).select_related("activity")
    if TABS[tab] != (ApprovalStatus.PENDING,):
        return found.filter(status__in=TABS[tab]).order_by("-decided_at", "-id")
    found = found.pending()
    if tab == "mine":
        found = found.filter(assigned_to=str(request.user.pk))
    return found.order_by(*ORDERS[order]) if ORDERS[order] else found


def _count_of_mine(request: HttpRequest) -> str:
    """Return the number of pending approvals that are assigned to the user, or ""; one query."""
    number = _found(request, "mine", "oldest").order_by()[: MAX_COUNTED + 1].count()
    return f"{MAX_COUNTED}+" if number > MAX_COUNTED else str(number or "")


def _decision(request: HttpRequest) -> Callable[[Approval], Approval]:
    """Return the decision that the form asks for. Raises `InvalidOption` for one that is incomplete."""
    reason, kind = request.POST.get("reason", "").strip(), request.POST.get("decision")
    if kind == "approve":
        return lambda found: approvals.approve(found.id, reason=reason, scope=request.POST.get("scope") or "once")
    if kind == "answer":
        return lambda found: approvals.answer(found.id, _given_answer(request, found))
    if kind != "reject":
        raise InvalidOption(_("Choose a decision."))
    if not reason:
        raise InvalidOption(_("Give a reason to reject: the agent reads it. Nothing was decided."))
    return lambda found: approvals.reject(found.id, reason=reason)


def _given_answer(request: HttpRequest, found: Approval) -> Any:
    """Return the answer: a choice in its own type, or a text."""
    text = request.POST.get("answer", "").strip()
    if not text:
        raise InvalidOption(_("Give an answer. Nothing was decided."))
    return next((choice for choice in found.choices or () if str(choice) == text), text)


def _tab_labels() -> dict[str, str]:
    return {"waiting": _("Waiting"), "mine": _("Mine"), "decided": _("Decided"), "expired": _("Expired")}


def _order_labels() -> dict[str, str]:
    return {
        "expiry": _("Expires first"),
        "oldest": _("Oldest first"),
        "newest": _("Newest first"),
        "tool": _("By tool"),
    }
