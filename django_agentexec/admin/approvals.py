"""The admin of approvals: an inbox of pending decisions, and the decided and expired ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import activity, approvals
from ..exceptions import ActivityLocked, AlreadyDecided, ApprovalNotFound, ApprovalVoid, InvalidOption
from ..models import Approval, ApprovalKind, ApprovalQuerySet, ApprovalStatus
from ..parsing import parse_id
from .access import AccessAdmin, may_decide, visible_approvals
from .actors import user_names
from .addresses import next_address
from .approval_cards import card, lines, status_text
from .argument_forms import arguments_of, can_change, fields_of
from .formatting import duration
from .pagination import row_page
from .sockets import socket_path
from .texts import script_texts

PAGE_SIZE = 50
TABS = {
    "waiting": (ApprovalStatus.PENDING,),
    "decided": (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED),
    "expired": (ApprovalStatus.EXPIRED, ApprovalStatus.VOID),
}


class ApprovalAdmin(AccessAdmin):
    """Approvals: read-only but for the decision."""

    def get_urls(self) -> list[URLPattern]:
        """Add the decision about one approval, and the form of its arguments."""
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/decide/", view(self.decide), name="agentexec_approval_decide"),
            path("<path:object_id>/arguments/", view(self.change_arguments), name="agentexec_approval_arguments"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> ApprovalQuerySet:  # type: ignore[override]  # of another model
        """Return the approvals of visible activities."""
        return visible_approvals(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: approvals go with their activity, as a record of who decided."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may view activities, or that of this approval."""
        return super().has_view_permission(request, obj.activity if isinstance(obj, Approval) else None)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the inbox; a POST approves the selected calls of one tool, after a confirmation."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._approve_many(request)
        tab = request.GET.get("tab", "waiting")
        tab = tab if tab in TABS else "waiting"
        found = visible_approvals(request).select_related("activity").filter(status__in=TABS[tab])
        found = found.pending() if tab == "waiting" else found.order_by("-decided_at", "-id")
        page = row_page(request, found, PAGE_SIZE)
        return self.render_page(
            request,
            "inbox.html",
            {
                "title": _("Approvals"),
                "tab": tab,
                "tabs": [(name, label, name == tab) for name, label in _tab_labels().items()],
                "cards": [card(each, may_decide=may_decide(request, each.activity)) for each in page.rows]
                if tab == "waiting"
                else [],
                "lines": lines(page.rows) if tab != "waiting" else [],
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
        return HttpResponseRedirect(self._activity_url(self._found(request, object_id)))

    def decide(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Decide one approval, and return to the page with its card."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        found = self._found(request, object_id)
        if not may_decide(request, found.activity):
            raise PermissionDenied
        refusal = self._try(request, found, lambda each: _decision(request)(each))
        if isinstance(refusal, InvalidOption):
            self.message_user(request, str(refusal), messages.WARNING)
        return HttpResponseRedirect(self._next(request))

    def change_arguments(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for other arguments, and approve the call with them."""
        found = self._found(request, object_id)
        if not may_decide(request, found.activity):
            raise PermissionDenied
        if not (found.is_pending and can_change(found)):
            return HttpResponseRedirect(self._activity_url(found))
        fields, errors = fields_of(found), list[str]()
        if request.method == "POST":
            arguments = arguments_of(found, fields, request.POST.dict())
            if not any(field.error for field in fields):
                reason = request.POST.get("reason", "")
                refusal = self._try(
                    request, found, lambda each: approvals.approve(each.id, reason=reason, arguments=arguments)
                )
                if not isinstance(refusal, InvalidOption):
                    return HttpResponseRedirect(self._next(request))
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
                "next": self._next(request),
            },
            folder="approval",
            status=400 if request.method == "POST" else 200,
        )

    def _try(self, request: HttpRequest, found: Approval, decision: Callable[[Approval], Approval]) -> Exception | None:
        """Decide, and report it to the user; return the refusal if there is one. `InvalidOption` is not reported."""
        try:
            with activity.acting_as(request.user):
                decided = decision(found)
        except InvalidOption as refusal:
            return refusal
        except (AlreadyDecided, ApprovalVoid, ApprovalNotFound, ActivityLocked) as refusal:
            self.message_user(request, _refusal_text(refusal), messages.WARNING)
            return refusal
        # Not the tool first: Django's template would capitalize it.
        self.message_user(request, f"{status_text(decided)}: {found.tool}", messages.SUCCESS)
        return None

    def _approve_many(self, request: HttpRequest) -> HttpResponse:
        found = self._selected(request)
        tools = {each.tool for each in found}
        if len(tools) != 1:
            text = _("Select approvals of one tool only.") if tools else _("Select at least one approval.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        if not request.POST.get("confirmed"):
            return self._ask(request, found)
        done, refused = 0, 0
        for each in found:
            try:
                with activity.acting_as(request.user):
                    approvals.approve(each.id, reason=request.POST.get("reason", ""))
                done += 1
            except (AlreadyDecided, ApprovalVoid, ApprovalNotFound, InvalidOption, ActivityLocked):
                refused += 1
        text = ngettext("%(count)d call was approved.", "%(count)d calls were approved.", done) % {"count": done}
        self.message_user(request, text, messages.SUCCESS if done else messages.WARNING)
        if refused:
            text = ngettext(
                "%(count)d decision was made before, and is left as it is.",
                "%(count)d decisions were made before, and are left as they are.",
                refused,
            )
            self.message_user(request, text % {"count": refused}, messages.WARNING)
        return HttpResponseRedirect(request.get_full_path())

    def _ask(self, request: HttpRequest, found: list[Approval]) -> HttpResponse:
        title = ngettext("Approve %(count)d call of %(tool)s?", "Approve %(count)d calls of %(tool)s?", len(found))
        return self.render_page(
            request,
            "confirm.html",
            {
                "title": title % {"count": len(found), "tool": found[0].tool},
                "cards": [card(each, may_decide=False) for each in found],
                "back": request.get_full_path(),
            },
            folder="approval",
        )

    def _selected(self, request: HttpRequest) -> list[Approval]:
        """Return the selected pending approvals of tool calls that the user may decide."""
        ids = []
        for text in request.POST.getlist("selected")[:PAGE_SIZE]:
            try:
                ids.append(parse_id(text))
            except ValueError:
                continue
        found = visible_approvals(request).select_related("activity").filter(pk__in=ids, kind=ApprovalKind.APPROVAL)
        return [each for each in found.pending() if may_decide(request, each.activity)]

    def _found(self, request: HttpRequest, object_id: str) -> Approval:
        try:
            found = visible_approvals(request).select_related("activity").filter(pk=parse_id(object_id)).first()
        except ValueError:
            found = None
        if found is None or not self.has_view_permission(request, found):
            raise Http404(_("There is no approval %(id)s.") % {"id": object_id})
        return found

    def _activity_url(self, found: Approval) -> str:
        return reverse(f"{self.admin_site.name}:agentexec_activity_change", args=[found.activity_id])

    def _next(self, request: HttpRequest) -> str:
        return next_address(request, reverse(f"{self.admin_site.name}:agentexec_approval_changelist"))


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


def _refusal_text(refusal: Exception) -> str:
    if isinstance(refusal, AlreadyDecided):
        found = refusal.approval
        by = user_names({found.decided_by}).get(found.decided_by, found.decided_by) if found.decided_by else ""
        ago = duration((timezone.now() - found.decided_at).total_seconds()) if found.decided_at else ""
        values = {"status": status_text(found), "by": by, "ago": ago}
        if by:
            return _("%(status)s by %(by)s %(ago)s ago. Your decision was not applied.") % values
        return _("%(status)s %(ago)s ago. Your decision was not applied.") % values
    if isinstance(refusal, ApprovalVoid):
        return _("The activity no longer waits for this decision. Your decision was not applied.")
    return str(refusal)


def _tab_labels() -> dict[str, str]:
    return {"waiting": _("Waiting"), "decided": _("Decided"), "expired": _("Expired")}
