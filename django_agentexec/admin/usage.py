"""The page "Usage and cost" of the visible activities, and its CSV file."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from ..costs.spreadsheet import usage_csv
from ..costs.usage import METADATA, group_expression, usage_report
from ..exceptions import InvalidOption
from ..models import Activity
from .access import AccessAdmin, visible
from .metadata import metadata_columns
from .spend import RANGES, page_data, period_of


class UsagePages(AccessAdmin):
    """Views below `usage/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add the page."""
        view = self.admin_site.admin_view
        return [path("usage/", view(self.usage_page), name="agentexec_activity_usage"), *super().get_urls()]

    def usage_page(self, request: HttpRequest) -> HttpResponse:
        """Show the page; with `?format=csv` return its groups as CSV."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        chosen = request.GET.get("range", "")
        chosen = chosen if chosen in RANGES else "28d"
        period, groups = period_of(chosen), _group_labels()
        group_by = request.GET.get("by", "task")
        try:
            group_expression(group_by, period)
        except InvalidOption:
            group_by = "task"
        activities = visible(request, Activity.objects.all())
        if request.GET.get("format") == "csv":
            report = usage_report(activities, period, group_by)
            response = HttpResponse(usage_csv(report), content_type="text/csv; charset=utf-8")
            response["Content-Disposition"] = f'attachment; filename="usage-{period.first}-{period.last}.csv"'
            return response
        groups.setdefault(group_by, group_by.removeprefix(METADATA))
        return self.render_page(
            request,
            "usage.html",
            {
                "title": _("Usage and cost"),
                "range": chosen,
                "range_label": _range_labels()[chosen],
                "ranges": [
                    (urlencode({"range": name, "by": group_by}), label, name == chosen)
                    for name, label in _range_labels().items()
                ],
                "group_by": group_by,
                "group_label": groups[group_by],
                "groups": groups.items(),
                "csv_query": urlencode({"range": chosen, "by": group_by, "format": "csv"}),
                "price_url": self._price_url(request),
                **page_data(activities, period, group_by),
            },
        )

    def _price_url(self, request: HttpRequest) -> str:
        """Return the address of a new price, or "" without the permission to add one."""
        if not request.user.has_perm("agentexec.add_modelprice"):
            return ""
        return reverse(f"{self.admin_site.name}:agentexec_modelprice_add")


def _range_labels() -> dict[str, str]:
    return {"today": _("Today"), "7d": _("7 d"), "28d": _("28 d"), "month": _("Month")}


def _group_labels() -> dict[str, Any]:
    columns = {f"{METADATA}{column.key}": column.label for column in metadata_columns()}
    return {"task": _("Task"), "model": _("Model"), **columns}
