"""The live dashboard: its page, and the data of its polls."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.apps import apps
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Min, Q, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from .. import monitoring
from ..conf import conf
from ..costs.usage import calls_of
from ..models import Activity, ActivityQuerySet, ApprovalStatus, PauseScope
from ..schemas import ActivityListItemSchema
from .access import AccessAdmin, may_pause, visible, visible_approvals
from .addresses import socket_path
from .alerts import alerts, pause_alerts
from .budget_card import budget_lines
from .formatting import duration, moment, money
from .pauses import shown_pauses
from .spend import period_of
from .statistics import RANGES, bars, by_task, recent_runs, total
from .texts import script_texts

MAX_RUNNING = 50  # activities that the dashboard follows one by one
MAX_TASKS = 30  # rows of the statistics
MAX_SCHEDULES = 5
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
        """Show the page with its first data."""
        self._check_monitor(request)
        name = self.admin_site.name
        return self.render_page(
            request,
            "dashboard.html",
            {
                "title": _("Dashboard"),
                "may_monitor": True,
                "texts": script_texts(),
                "first": self._data(request, with_overview=True),
                "spend": spend_texts(visible(request, Activity.objects.all())),
                "socket": socket_path(),
                "data_url": reverse(f"{name}:agentexec_activity_dashboard_data"),
                "pause_url": reverse(f"{name}:agentexec_activity_pause"),
                "next": request.get_full_path(),
                "activity_url": reverse(f"{name}:agentexec_activity_change", args=[_NO_ID]).replace(_NO_ID, "{id}"),
                **self._statistics(request),
                "budgets": budget_lines(request, self.admin_site),
                "schedules": self._next_schedules(request),
            },
        )

    def _statistics(self, request: HttpRequest) -> dict[str, Any]:
        """Return the statistics of the chosen time range; one query."""
        chosen = RANGES.get(request.GET.get("range", ""), RANGES["1h"])
        runs, is_partial = recent_runs(visible(request, Activity.objects.all()), chosen.span)
        lines = by_task(runs)
        labels = {"1h": _("1 h"), "24h": _("24 h"), "7d": _("7 d"), "30d": _("30 d")}
        return {
            "range": chosen.name,
            "range_label": labels[chosen.name],
            "ranges": [(name, labels[name], name == chosen.name) for name in RANGES],
            "tasks": lines[:MAX_TASKS],
            "pausable_tasks": [
                line.task for line in lines[:MAX_TASKS] if may_pause(request, PauseScope.TASK, line.task)
            ],
            "tasks_total": total(lines),
            "is_partial": is_partial,
            "counted": len(runs),
            # The charts of the past hour are live, from Redis.
            "buckets": None if chosen.name == "1h" else bars(runs, chosen.span),
        }

    def _next_schedules(self, request: HttpRequest) -> list[dict[str, Any]] | None:
        """Return the schedules that are due next, or None without the schedules app or its permission; one query."""
        if not apps.is_installed("django_agentexec.schedules"):
            return None
        if not request.user.has_perm("agentexec_schedules.view_agentschedule"):
            return None
        schedules = apps.get_model("agentexec_schedules", "AgentSchedule")._default_manager.filter(
            enabled=True, next_run_at__isnull=False
        )
        route = f"{self.admin_site.name}:agentexec_schedules_agentschedule_change"
        now = timezone.now()
        due = schedules.only("pk", "name", "next_run_at").order_by("next_run_at")[:MAX_SCHEDULES]
        return [
            {
                "name": one.name,
                "url": reverse(route, args=[one.pk]),
                "due": moment(one.next_run_at),
                "in": duration((one.next_run_at - now).total_seconds()) if one.next_run_at > now else "",
            }
            for one in due
            if one.next_run_at is not None
        ]

    def dashboard_data(self, request: HttpRequest) -> JsonResponse:
        """Return `{running: [...], overview: {...}, alerts: [...]}`; with `?overview=0` only the first.

        With `?spend=1`, which reads the calls of a month, also `spend`.
        """
        self._check_monitor(request)
        data = self._data(request, with_overview=request.GET.get("overview") != "0")
        if request.GET.get("spend") == "1":
            data["spend"] = spend_texts(visible(request, Activity.objects.all()))
        return JsonResponse(data, headers={"Cache-Control": "no-store"})

    def _data(self, request: HttpRequest, *, with_overview: bool) -> dict[str, Any]:
        running = (
            visible(request, Activity.objects.all()).running().without_payloads().order_by("-agent_id")[:MAX_RUNNING]
        )
        data: dict[str, Any] = {
            "running": [ActivityListItemSchema.model_validate(row).model_dump(mode="json") for row in running]
        }
        if with_overview:
            overview = monitoring.overview()
            pauses = shown_pauses(request)
            data["overview"] = {**overview.model_dump(mode="json"), **self._needs_approval(request), "pauses": pauses}
            for line in data["overview"]["queues"]:
                line["may_pause"] = may_pause(request, PauseScope.QUEUE, line["name"])
            list_url = reverse(f"{self.admin_site.name}:agentexec_activity_changelist")
            data["alerts"] = [*alerts(overview, list_url), *pause_alerts(pauses, overview, list_url)]
        return data

    def _needs_approval(self, request: HttpRequest) -> dict[str, Any]:
        """Return the number of decisions that agents wait for, and the age of the oldest in seconds; one query."""
        pending = visible_approvals(request).filter(status=ApprovalStatus.PENDING).order_by()[: conf.COUNT_LIMIT]
        found = pending.aggregate(count=Count("pk"), oldest=Min("requested_at"))
        oldest = found["oldest"]
        return {
            "needs_approval": found["count"],
            "oldest_request": None if oldest is None else max(0.0, (timezone.now() - oldest).total_seconds()),
        }

    def _check_monitor(self, request: HttpRequest) -> None:
        if not self.has_monitor_permission(request):
            raise PermissionDenied


def spend_texts(activities: ActivityQuerySet) -> dict[str, str]:
    """Return the cost of the calls of today and of this month; one query."""
    is_today = Q(started_at__gte=period_of("today").start)
    sums = (
        calls_of(activities, period_of("month"))
        .order_by()
        .aggregate(
            today=Sum("cost", filter=is_today),
            month=Sum("cost"),
            calls_today=Count("pk", filter=is_today),
            calls=Count("pk"),
        )
    )
    return {
        "today": _cost(sums["today"], sums["calls_today"]),
        "month": _("%(cost)s this month") % {"cost": _cost(sums["month"], sums["calls"])},
    }


def _cost(sum_of_known: Decimal | None, calls: int) -> str:
    """Return a cost: 0 without calls, and unknown if no call has a price."""
    return money(Decimal(0) if sum_of_known is None and not calls else sum_of_known)
