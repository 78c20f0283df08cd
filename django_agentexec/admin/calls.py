"""Pages below an activity for its trace: the card, the content of a call, and the fork from a call."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from .. import activity as activities
from ..calls.content import redacted
from ..calls.queries import detail_of
from ..conf import conf
from ..exceptions import AgentExecError
from ..models import Activity, AgentCall, Approval, CallKind
from ..redaction import redact_internals
from ..tasks.authorization import check_authorized
from .actors import actor_names
from .copies import CopyPages, task_of
from .formatting import pretty_json
from .status import short_id
from .trace import MAX_TEXT, call_content, trace_card

FOLDER = "admin/agentexec/activity"


class CallPages(CopyPages):
    """The pages `<id>/trace/`, `<id>/call/<call>/` and `<id>/fork/<call>/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add the pages."""
        view = self.admin_site.admin_view
        pages = [
            path("<path:object_id>/trace/", view(self.trace_part), name="agentexec_activity_trace"),
            path("<path:object_id>/call/<uuid:call_id>/", view(self.call_page), name="agentexec_activity_call"),
            path("<path:object_id>/fork/<uuid:call_id>/", view(self.fork_page), name="agentexec_activity_fork"),
        ]
        return [*pages, *super().get_urls()]

    def trace_part(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the card of the trace as a part of the page, for a refresh."""
        found = self._visible(request, object_id)
        is_redacted = not self.has_monitor_permission(request)
        card = trace_card(found, request.GET.get("calls", ""), is_redacted=is_redacted)
        return self._part("trace.html", request, {"original": found, "trace": card})

    def call_page(self, request: HttpRequest, object_id: str, call_id: UUID) -> HttpResponse:
        """Return the content of a call: as a page, as a part of one (`?part`), or as JSON (`?format=json`)."""
        found, call = self._call(request, object_id, call_id)
        monitors = self.has_monitor_permission(request)
        if request.GET.get("format") == "json":
            data = detail_of(found, call, monitors=monitors).model_dump(mode="json")
            text = pretty_json(data if monitors else redact_internals(data))
            return HttpResponse(text, content_type="application/json; charset=utf-8")
        content = call_content(call, monitors=monitors)
        context = {
            **content,
            **_change(call, monitors=monitors),
            "request_text": content["request"],
            "original": found,
            "may_fork": self.has_copy_permission(request, found),
        }
        del context["request"]  # Django's own name
        if "part" in request.GET:
            return self._part("call.html", request, context)
        title = call.name or call.agent or call.call_id
        page = {"title": title, "short_id": short_id(found), "may_monitor": monitors}
        return self.render_page(request, "call_page.html", {**context, **page})

    def fork_page(self, request: HttpRequest, object_id: str, call_id: UUID) -> HttpResponse:
        """Ask for confirmation, and enqueue the fork."""
        found, call = self._call(request, object_id, call_id)
        if not self.has_copy_permission(request, found):
            raise PermissionDenied
        error = ""
        if request.method == "POST":
            try:
                return HttpResponseRedirect(self._fork(request, found, call))
            except AgentExecError as refusal:
                error = str(refusal)
        return self.render_page(
            request,
            "fork.html",
            {
                "title": _("Fork from here"),
                "original": found,
                "short_id": short_id(found),
                "name": call.name or call.agent or call.call_id,
                "error": error,
            },
            status=400 if error else 200,
        )

    def _fork(self, request: HttpRequest, found: Activity, call: AgentCall) -> str:
        task = task_of(found)
        if task is None:
            raise PermissionDenied
        check_authorized(task, request.user, task.parse_context(found.context), found.metadata)
        with activities.acting_as(request.user):
            agent_id = activities.fork(found.agent_id, before=call.id)
        copy = Activity.objects.without_payloads().get(pk=agent_id)
        self.log_addition(request, copy, _("Fork of %(id)s.") % {"id": found.agent_id})
        self.message_user(request, _("The fork was queued."), messages.SUCCESS)
        return reverse(f"{self.admin_site.name}:agentexec_activity_change", args=[agent_id])

    def _part(self, template: str, request: HttpRequest, context: dict[str, object]) -> HttpResponse:
        request.current_app = self.admin_site.name
        text = render_to_string(f"{FOLDER}/{template}", context, request)
        return HttpResponse(text, headers={"Cache-Control": "no-store"})

    def _call(self, request: HttpRequest, object_id: str, call_id: UUID) -> tuple[Activity, AgentCall]:
        found = self._visible(request, object_id)
        call = AgentCall.objects.of(found.agent_id).filter(id=call_id).first()
        if call is None:
            raise Http404(_("There is no call %(id)s.") % {"id": call_id})
        return found, call

    def _visible(self, request: HttpRequest, object_id: str) -> Activity:
        found = self.get_object(request, unquote(object_id))
        if found is None:
            raise Http404(_("There is no activity %(id)s.") % {"id": object_id})
        if not self.has_view_permission(request, found):
            raise PermissionDenied
        return found


def _change(call: AgentCall, *, monitors: bool) -> dict[str, str]:
    """Return the note about arguments that a person has changed; one query for the call of a tool.

    The arguments that the model chose are redacted as those of the call.
    """
    if call.kind != CallKind.TOOL or call.arguments is None or conf.TRACE_CONTENT != "full":
        return {}
    decisions = Approval.objects.filter(
        activity_id=call.activity_id, path=call.path, call_id=call.call_id, changed_arguments__isnull=False
    )
    found = decisions.order_by("-id").first()
    if found is None:
        return {}
    by = actor_names([found.decided_by], monitors=monitors).get(found.decided_by or "", "")
    text = _("Changed by %(by)s when approving.") if by else _("Changed when approving.")
    chosen, is_hidden = redacted(found.arguments, "arguments", call)
    shown = {} if is_hidden else {"chosen_arguments": pretty_json(chosen)[:MAX_TEXT]}
    return {"changed": text % {"by": by}, **shown}
