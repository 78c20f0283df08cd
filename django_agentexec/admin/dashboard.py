"""The live dashboard: its page, and the data that it polls for."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from .. import monitoring
from ..models import Activity
from ..schemas import ActivityListItemSchema
from .access import AccessAdmin, visible
from .base import IS_UNFOLD
from .sockets import socket_path

MAX_RUNNING = 50  # activities that the dashboard follows one by one
_NO_ID = "00000000-0000-0000-0000-000000000000"


class DashboardPages(AccessAdmin):
    """Views below `dashboard/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add the dashboard."""
        view = self.admin_site.admin_view
        pages = [
            path("dashboard/", view(self.dashboard), name="agentexec_activity_dashboard"),
            path("dashboard/data/", view(self.dashboard_data), name="agentexec_activity_dashboard_data"),
        ]
        return [*pages, *super().get_urls()]

    def dashboard(self, request: HttpRequest) -> HttpResponse:
        """Show the page, with the data of its first sight inside."""
        self._check_monitor(request)
        request.current_app = self.admin_site.name
        name = self.admin_site.name
        return TemplateResponse(
            request,
            "admin/agentexec/activity/dashboard.html",
            {
                **self.admin_site.each_context(request),
                "title": _("Dashboard"),
                "subtitle": None,
                "opts": self.opts,
                "is_unfold": IS_UNFOLD,
                "media": self.media,
                "first": self._data(request, with_overview=True),
                "socket": socket_path(),
                "data_url": reverse(f"{name}:agentexec_activity_dashboard_data"),
                "activity_url": reverse(f"{name}:agentexec_activity_change", args=[_NO_ID]).replace(_NO_ID, "{id}"),
            },
        )

    def dashboard_data(self, request: HttpRequest) -> JsonResponse:
        """Return `{running: [...], overview: {...}}`; without the overview for `?overview=0`."""
        self._check_monitor(request)
        data = self._data(request, with_overview=request.GET.get("overview") != "0")
        return JsonResponse(data, headers={"Cache-Control": "no-store"})

    def _data(self, request: HttpRequest, *, with_overview: bool) -> dict[str, Any]:
        running = (
            visible(request, Activity.objects.all()).running().without_payloads().order_by("-agent_id")[:MAX_RUNNING]
        )
        data: dict[str, Any] = {
            "running": [ActivityListItemSchema.model_validate(row).model_dump(mode="json") for row in running]
        }
        if with_overview:
            data["overview"] = monitoring.overview().model_dump(mode="json")
        return data

    def _check_monitor(self, request: HttpRequest) -> None:
        if not self.has_monitor_permission(request):
            raise PermissionDenied
