"""Decisions about several calls of one tool: the page that shows all of them, and the result."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import activity, approvals
from ..exceptions import InvalidOption
from ..models import Approval, ApprovalKind
from ..parsing import parse_id
from .access import may_decide, visible_approvals
from .approval_base import PAGE_SIZE, REFUSALS, ApprovalBase
from .approval_cards import card, name_assignees


class BulkDecisions(ApprovalBase):
    """The POST of the inbox."""

    def decide_many(self, request: HttpRequest) -> HttpResponse:
        """Approve or reject the selected calls of one tool, after a confirmation."""
        # Pages of earlier releases name no decision, and approve.
        found, decision = self._selected(request), request.POST.get("decision", "approve")
        tools, is_rejection = {each.tool for each in found}, decision == "reject"
        problem = ""
        if len(tools) != 1:
            problem = _("Select approvals of one tool only.") if tools else _("Select at least one approval.")
        elif decision not in ("approve", "reject"):
            problem = _("Choose a decision.")
        if problem:
            self.message_user(request, problem, messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        reason = request.POST.get("reason", "").strip()
        if not request.POST.get("confirmed"):
            return self._ask(request, found, is_rejection=is_rejection)
        if is_rejection and not reason:
            error = _("Give a reason to reject: the agent reads it. Nothing was decided.")
            return self._ask(request, found, is_rejection=True, error=error)
        try:
            done = sum(_decide(request, each, reason, is_rejection=is_rejection) for each in found)
        except InvalidOption as refusal:  # of the reason, so nothing was decided
            return self._ask(request, found, is_rejection=is_rejection, error=str(refusal))
        self._report(request, done, len(found) - done, is_rejection=is_rejection)
        return HttpResponseRedirect(request.get_full_path())

    def _report(self, request: HttpRequest, done: int, refused: int, *, is_rejection: bool) -> None:
        text = ngettext("%(count)d call was approved.", "%(count)d calls were approved.", done)
        if is_rejection:
            text = ngettext("%(count)d call was rejected.", "%(count)d calls were rejected.", done)
        self.message_user(request, text % {"count": done}, messages.SUCCESS if done else messages.WARNING)
        if refused:
            text = ngettext(
                "%(count)d decision was made before, and is left as it is.",
                "%(count)d decisions were made before, and are left as they are.",
                refused,
            )
            self.message_user(request, text % {"count": refused}, messages.WARNING)

    def _ask(self, request: HttpRequest, found: list[Approval], *, is_rejection: bool, error: str = "") -> HttpResponse:
        title = ngettext("Approve %(count)d call of %(tool)s?", "Approve %(count)d calls of %(tool)s?", len(found))
        if is_rejection:
            title = ngettext("Reject %(count)d call of %(tool)s?", "Reject %(count)d calls of %(tool)s?", len(found))
        return self.render_page(
            request,
            "confirm.html",
            {
                "title": title % {"count": len(found), "tool": found[0].tool},
                "cards": [card(each, may_decide=False) for each in name_assignees(found)],
                "is_rejection": is_rejection,
                "error": error,
                "back": request.get_full_path(),
            },
            folder="approval",
            status=400 if error else 200,
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


def _decide(request: HttpRequest, found: Approval, reason: str, *, is_rejection: bool) -> bool:
    """Decide, and return whether the decision was applied. Raises `InvalidOption` for an impossible reason."""
    decision = approvals.reject if is_rejection else approvals.approve
    try:
        with activity.acting_as(request.user):
            decision(found.id, reason=reason)
    except REFUSALS:
        return False
    return True
