"""The page of one activity (read-only), the addresses of long values, and the data of live updates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from ..concurrency.rules import note_pauses, pauses_of
from ..models import (
    DECISIONS,
    Activity,
    ActivityLog,
    ActivityQuerySet,
    Approval,
    ApprovalStatus,
)
from ..parsing import parse_digits
from ..pipelines.diagram import StepView, mermaid_of, steps_of
from ..public_errors import neutral_error
from ..redaction import redact_internals, redact_row
from ..schemas import ActivityListItemSchema, ActivityLogSchema
from .access import may_decide, visible
from .actors import name_actors
from .addresses import socket_path
from .approval_cards import Card, card, name_assignees
from .calls import CallPages
from .children import MAX_CHILDREN, ChildCounts, child_counts, latest_children
from .columns import line_of, percentage_of
from .detail import MAX_LINES, VALUES, facts, json_value, spend, steps_with_values, timeline, usage
from .formatting import pretty_json
from .metadata import metadata_columns
from .pauses import pause_notices
from .status import short_id, shown_status, status_label
from .texts import script_texts
from .trace import trace_card

MAX_CARDS = 20  # approvals of one activity on its page


class DetailPages(CallPages):
    """Views below `<id>/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add a value's page and the live data."""
        view = self.admin_site.admin_view
        pages = [
            path("<path:object_id>/live/", view(self.live_data), name="agentexec_activity_live"),
            path("<path:object_id>/value/<str:name>/", view(self.whole_value), name="agentexec_activity_value"),
        ]
        return [*pages, *super().get_urls()]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one activity. There is no form: an activity cannot be edited."""
        if object_id is None or request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        activity = self.get_object(request, unquote(object_id))
        if activity is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]  # Django's own, unknown to the stubs
        if not self.has_view_permission(request, activity):
            raise PermissionDenied
        return self.render_page(request, "detail.html", {**self._page(request, activity), **(extra_context or {})})

    def _page(self, request: HttpRequest, activity: Activity) -> dict[str, Any]:
        monitors = self.has_monitor_permission(request)
        if not monitors:
            redact_row(activity)
        others = visible(request, Activity.objects.all())
        counts = child_counts(others, [activity.pk]).get(activity.pk, ChildCounts())
        pauses = pauses_of(activity)
        activity.child_counts = counts  # type: ignore[attr-defined]  # for `percentage_of` and `line_of`
        before = _number(request.GET.get("before"))
        return {
            "title": activity.agent_type,
            "about": _about(activity),
            "may_monitor": monitors,
            "texts": script_texts(),
            "original": activity,
            "short_id": short_id(activity),
            "status": shown_status(activity),
            "status_label": status_label(shown_status(activity)),
            "percentage": percentage_of(activity),
            "line": line_of(activity) if activity.is_active else activity.latest_log_message,
            "timeline": (lines := timeline(activity, before, is_redacted=not monitors)),
            "enqueued_by": name_actors(activity, lines),
            "is_past": before is not None,
            "max_lines": MAX_LINES,
            "result": json_value(activity, "result"),
            "values": [value for name in ("context", "metadata") if (value := json_value(activity, name))],
            "trace": trace_card(activity, request.GET.get("calls", ""), is_redacted=not monitors),
            "usage": usage(activity),
            "spend": spend(activity, others, has_children=bool(counts.total)),
            "steps": steps_with_values(activity, views := self._step_views(activity, is_redacted=not monitors)),
            "diagram": mermaid_of(views),
            "parent": self._parent(others, activity.parent_id),
            "children": latest_children(others, activity, is_redacted=not monitors),
            "child_counts": counts,
            "has_more_children": counts.total > MAX_CHILDREN,
            "socket": socket_path(activity.agent_id),
            "may": self._allowed(request, activity),
            "approval_cards": self._approval_cards(request, activity),
            "pauses": pause_notices(request, pauses, monitors=monitors),
            "next": request.path,
            **facts(activity),
        }

    def _approval_cards(self, request: HttpRequest, activity: Activity) -> list[Card]:
        """Return the cards of the decisions that the activity waits for; a query only if there are any."""
        if activity.waiting_for not in DECISIONS:
            return []
        decides = may_decide(request, activity) and self.admin_site.is_registered(Approval)
        pending = activity.approvals.filter(status=ApprovalStatus.PENDING).order_by("id")[:MAX_CARDS]
        return [card(each, may_decide=decides) for each in name_assignees(list(pending))]

    def _step_views(self, activity: Activity, *, is_redacted: bool) -> list[StepView]:
        views = steps_of(activity)
        return [_redacted(view) for view in views] if is_redacted else views

    def _allowed(self, request: HttpRequest, activity: Activity) -> dict[str, bool]:
        """Return which actions the page offers."""
        is_finished = not activity.is_active and bool(activity.queue)
        may_retry = is_finished and self.has_retry_permission(request, activity)
        return {
            "repeat": may_retry,
            "cancel": activity.is_active and self.has_cancel_permission(request, activity),
            "retry": may_retry and activity.is_retryable,
            "copy": is_finished and self.has_copy_permission(request, activity),
            "delete": self.has_delete_permission(request, activity),
        }

    def _parent(self, others: ActivityQuerySet, parent_id: UUID | None) -> Activity | None:
        if parent_id is None:
            return None
        return others.filter(pk=parent_id).only("agent_id", "agent_type", "status").first()

    def whole_value(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Return a whole JSON column as JSON, so that no browser renders it as a page."""
        if name not in VALUES:
            raise Http404(_("There is no value %(name)s.") % {"name": name})
        activity = self._visible(request, object_id)
        return HttpResponse(pretty_json(getattr(activity, name)), content_type="application/json; charset=utf-8")

    def live_data(self, request: HttpRequest, object_id: str) -> JsonResponse:
        """Return the state and the log lines after `?after=<log id>`, as the websocket's `activity` event does."""
        activity = self._visible(request, object_id)
        after = _number(request.GET.get("after")) or 0
        note_pauses([activity])
        lines = list(ActivityLog.objects.filter(activity_id=activity.pk, id__gt=after).order_by("id")[:MAX_LINES])
        data = {
            "type": "activity",
            "activity": ActivityListItemSchema.model_validate(activity).model_dump(mode="json"),
            "logs": [ActivityLogSchema.model_validate(line).model_dump(mode="json") for line in lines],
            "last_log_id": lines[-1].id if lines else after,
        }
        shown = data if self.has_monitor_permission(request) else redact_internals(data)
        return JsonResponse(shown, headers={"Cache-Control": "no-store"})


def _redacted(step: StepView) -> StepView:
    return replace(step, error=neutral_error(step.error) if step.error else "")


def _about(activity: Activity) -> str:
    """Return the values of the configured metadata columns: what the activity is about."""
    found = [(column.label, column.text(activity)) for column in metadata_columns()]
    return ", ".join(f"{label} {text}" for label, text in found if text)


def _number(text: str | None) -> int | None:
    """Return a log id from the address, or None if it is not a number."""
    return parse_digits(text or "")
