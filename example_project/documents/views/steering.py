"""Cancel, retry and decisions, for browsers without JavaScript or without a websocket: the forms of the buttons."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from django_agentexec import activity, approvals
from django_agentexec.exceptions import AlreadyDecided, ApprovalVoid, InvalidOption, InvalidTransition
from django_agentexec.models import Approval
from django_agentexec.policy import Permission, get_policy

from .runs import visible

VERBS: dict[str, tuple[Permission, Callable[[UUID], None]]] = {
    "cancel": (Permission.CANCEL, activity.cancel),
    "retry": (Permission.RETRY, activity.retry),
}


@login_required
@require_POST
def steer(request: HttpRequest, agent_id: UUID, verb: str) -> HttpResponseRedirect:
    """Cancel or retry a run, and redirect to its page."""
    run = get_object_or_404(visible(request), pk=agent_id)
    permission, change = VERBS[verb]
    if not get_policy().may(request.user, permission, run):
        raise PermissionDenied
    try:
        change(agent_id)
    except InvalidTransition as refusal:
        messages.error(request, f"That cannot be done: the run is {refusal.reason}.")
    return redirect("documents:run", agent_id)


@login_required
@require_POST
def decide(request: HttpRequest, approval_id: UUID) -> HttpResponseRedirect:
    """Approve or reject a call that a run of the visitor waits for, and redirect to the run's page."""
    found = get_object_or_404(Approval.objects.filter(activity__in=visible(request).order_by()), pk=approval_id)
    if not get_policy().may(request.user, Permission.DECIDE, found.activity):
        raise PermissionDenied
    change = approvals.approve if request.POST.get("decision") == "approve" else approvals.reject
    try:
        change(approval_id, by=request.user, reason=request.POST.get("reason", ""))
    except (AlreadyDecided, ApprovalVoid, InvalidOption) as refusal:
        messages.error(request, str(refusal))
    return redirect("documents:run", found.activity_id)
