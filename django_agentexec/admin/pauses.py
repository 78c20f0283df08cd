"""Pauses in the pages: what holds an activity, the data of the dashboard, and the pages that pause and resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import ADDITION, DELETION, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..concurrency import pause, resume
from ..concurrency.commands import MAX_REASON, validate_target
from ..exceptions import InvalidOption
from ..models import Pause, PauseScope
from .access import AccessAdmin, may_pause, may_resume
from .actors import actor_names
from .addresses import next_address
from .formatting import moment


@dataclass(frozen=True)
class Notice:
    """A pause on the page of an activity that it holds."""

    text: str
    reason: str
    by: str
    since: SafeString | str
    target: str
    """What the user may resume; "" if they may not."""


def pause_notices(request: HttpRequest, pauses: Sequence[Pause], *, monitors: bool) -> list[Notice]:
    """Return what the page of an activity shows of the pauses that hold it; a query if there are any.

    The reason and the name of a pause are shown to users with the monitor permission, and to those who may pause the
    same.
    """
    names = actor_names([row.actor for row in pauses], monitors=monitors)
    found = []
    for row in pauses:
        if not (monitors or may_pause(request, row.scope, row.name)):
            found.append(Notice(_held_by_unknown(row.scope), "", "", "", ""))
            continue
        by = names.get(row.actor or "", "")
        target = target_of(row.scope, row.name) if may_resume(request, row) else ""
        found.append(Notice(paused_text(row.scope, row.name), row.reason, by, moment(row.created_at), target))
    return found


def shown_pauses(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the pauses as the dashboard shows them, which needs the monitor permission. Two queries at most."""
    rows = list(Pause.objects.order_by("scope", "name"))
    names = actor_names([row.actor for row in rows], monitors=True)
    return [
        {
            "scope": row.scope,
            "name": row.name,
            "title": scope_text(row.scope, row.name),
            "reason": row.reason,
            "by": names.get(row.actor or "", ""),
            "since": row.created_at.isoformat(),
            "may_resume": may_resume(request, row),
        }
        for row in rows
    ]


def scope_text(scope: str, name: str) -> str:
    """Return what is paused in words, such as "Queue mail"."""
    texts = {
        PauseScope.QUEUE: _("Queue %(name)s"),
        PauseScope.TASK: _("Task %(name)s"),
        PauseScope.TENANT: _("Tenant %(name)s"),
    }
    return texts[PauseScope(scope)] % {"name": name}


def paused_text(scope: str, name: str) -> str:
    """Return that something is paused."""
    texts = {
        PauseScope.QUEUE: _("The queue %(name)s is paused"),
        PauseScope.TASK: _("The task %(name)s is paused"),
        PauseScope.TENANT: _("The tenant %(name)s is paused"),
    }
    return texts[PauseScope(scope)] % {"name": name}


def _question(scope: PauseScope, name: str) -> str:
    texts = {
        PauseScope.QUEUE: _("Pause the queue %(name)s?"),
        PauseScope.TASK: _("Pause the task %(name)s?"),
        PauseScope.TENANT: _("Pause the tenant %(name)s?"),
    }
    return texts[scope] % {"name": name}


def _held_by_unknown(scope: str) -> str:
    texts = {
        PauseScope.QUEUE: _("Its queue is paused"),
        PauseScope.TASK: _("Its task is paused"),
        PauseScope.TENANT: _("Its tenant is paused"),
    }
    return texts[PauseScope(scope)]


def target_of(scope: str, name: str) -> str:
    """Return scope and name as the value of a button, such as "queue:mail"."""
    return f"{scope}:{name}"


class PausePages(AccessAdmin):
    """Views below `dashboard/` that pause and resume a queue, task or tenant."""

    def get_urls(self) -> list[URLPattern]:
        """Add the views."""
        view = self.admin_site.admin_view
        pages = [
            path("dashboard/pause/", view(self.pause_page), name="agentexec_activity_pause"),
            path("dashboard/resume/", view(self.resume_page), name="agentexec_activity_resume"),
        ]
        return [*pages, *super().get_urls()]

    def pause_page(self, request: HttpRequest) -> HttpResponse:
        """Ask for a reason; a POST pauses."""
        scope, name = self._target(request, request.GET.get("scope", ""), request.GET.get("name", ""))
        errors = []
        if request.method == "POST":
            reason = request.POST.get("reason", "").strip()
            try:
                is_new = pause(scope, name, reason=reason, actor=str(request.user.pk))
            except InvalidOption as error:
                errors.append(str(error))
            else:
                text = (
                    _("%(target)s is paused. Running activities continue.")
                    if is_new
                    else _("%(target)s was paused already.")
                )
                return self._done(request, scope, name, text, ADDITION if is_new else None)
        return self.render_page(
            request,
            "pause.html",
            {
                "title": _question(scope, name),
                "errors": errors,
                "reason": request.POST.get("reason", ""),
                "max_reason": MAX_REASON,
                "next": self._next(request),
            },
            status=400 if errors else 200,
        )

    def resume_page(self, request: HttpRequest) -> HttpResponse:
        """Resume what the button of a POST names."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        scope, _colon, name = request.POST.get("target", "").partition(":")
        scope, name = self._target(request, scope, name)
        rows = list(Pause.objects.filter(scope=scope, name=name))
        if not all(may_resume(request, row) for row in rows):
            raise PermissionDenied
        if not resume(scope, name):
            return self._done(request, scope, name, _("%(target)s was not paused any more."), None)
        return self._done(request, scope, name, _("%(target)s is resumed."), DELETION, rows)

    def _target(self, request: HttpRequest, scope: str, name: str) -> tuple[PauseScope, str]:
        """Return what to pause or to resume. Raises `PermissionDenied`, also for what does not exist."""
        try:
            target = validate_target(scope, name)
        except InvalidOption as error:
            raise PermissionDenied from error
        if not may_pause(request, *target):
            raise PermissionDenied
        return target

    def _done(
        self,
        request: HttpRequest,
        scope: PauseScope,
        name: str,
        text: str,
        flag: int | None,
        rows: Sequence[Pause] | None = None,
    ) -> HttpResponse:
        """Report a change, log it like the admin of pauses does (`flag`), and return to the page before."""
        if flag is not None:
            changed = Pause.objects.filter(scope=scope, name=name) if rows is None else rows
            assert request.user.pk is not None
            LogEntry.objects.log_actions(request.user.pk, list(changed), flag, change_message="")
        level = messages.WARNING if flag is None else messages.SUCCESS
        self.message_user(request, text % {"target": scope_text(scope, name)}, level)
        return HttpResponseRedirect(self._next(request))

    def _next(self, request: HttpRequest) -> str:
        name = "dashboard" if self.has_monitor_permission(request) else "changelist"
        return next_address(request, reverse(f"{self.admin_site.name}:agentexec_activity_{name}"))
