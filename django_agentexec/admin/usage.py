"""The page "Usage and cost" of the visible activities, and its CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from ..costs.usage import METADATA, group_expression, usage_csv, usage_report
from ..exceptions import InvalidOption
from ..models import Activity, ActivityQuerySet
from .access import AccessAdmin, may_monitor, visible
from .metadata import MAX_ENTRIES, MetadataColumn, known_values, metadata_columns
from .spend import RANGES, page_data, period_of


class UsagePages(AccessAdmin):
    """Views below `usage/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add the page."""
        view = self.admin_site.admin_view
        return [path("usage/", view(self.usage_page), name="agentexec_activity_usage"), *super().get_urls()]

    def usage_page(self, request: HttpRequest) -> HttpResponse:
        """Show the page; with `?format=csv` return its groups as CSV.

        `?metadata.<key>=<value>` restricts it to the activities with this metadata.
        """
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
        everything, filters = visible(request, Activity.objects.all()), _filters(request)
        activities = everything
        for name, value in filters.items():
            activities = activities.for_metadata_text(name.removeprefix(METADATA), value)
        if request.GET.get("format") == "csv":
            report = usage_report(activities, period, group_by)
            response = HttpResponse(usage_csv(report), content_type="text/csv; charset=utf-8")
            response["Content-Disposition"] = f'attachment; filename="usage-{period.first}-{period.last}.csv"'
            return response
        groups.setdefault(group_by, group_by.removeprefix(METADATA))
        query = {"range": chosen, "by": group_by, **filters}
        return self.render_page(
            request,
            "usage.html",
            {
                "title": _("Usage and cost"),
                "range": chosen,
                "range_label": _range_labels()[chosen],
                "ranges": [
                    (urlencode({**query, "range": name}), label, name == chosen)
                    for name, label in _range_labels().items()
                ],
                "group_by": group_by,
                "group_label": groups[group_by],
                "group_title": _group_title(group_by, groups[group_by]),
                "groups": groups.items(),
                "filters": _fields(everything, filters),
                "is_filtered": bool(filters),
                "unfiltered_query": urlencode({"range": chosen, "by": group_by}),
                "csv_query": urlencode({**query, "format": "csv"}),
                "price_url": self._price_url(request),
                **page_data(activities, period, group_by, lambda value: _query_of(query, value)),
            },
        )

    def _price_url(self, request: HttpRequest) -> str:
        """Return the address of a new price, or "" for users who may not add one."""
        if not (request.user.has_perm("agentexec.add_modelprice") and may_monitor(request)):
            return ""
        return reverse(f"{self.admin_site.name}:agentexec_modelprice_add")


def _range_labels() -> dict[str, str]:
    return {"today": _("Today"), "7d": _("7 d"), "28d": _("28 d"), "month": _("Month")}


def _group_labels() -> dict[str, Any]:
    columns = {f"{METADATA}{column.key}": column.label for column in metadata_columns()}
    return {"task": _("Task"), "model": _("Model"), **columns}


def _group_title(group_by: str, label: str) -> str:
    """Return the title of the table; the label of a metadata column is the project's, and keeps its case."""
    known = {"task": _("By task"), "model": _("By model")}
    return known.get(group_by) or _("By %(group)s") % {"group": label}


def _filters(request: HttpRequest) -> dict[str, str]:
    """Return the values of the first parameters `metadata.<key>`; an empty value is no filter."""
    given = {
        name: str(value)
        for name, value in request.GET.items()
        if name.startswith(METADATA) and len(name) > len(METADATA) and value
    }
    return dict(list(given.items())[:MAX_ENTRIES])


def _fields(activities: ActivityQuerySet, filters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the fields of the form: those of the configured columns, and those of other keys in the address."""
    columns = {f"{METADATA}{column.key}": column for column in metadata_columns()}
    for name in filters:
        key = name.removeprefix(METADATA)
        columns.setdefault(name, MetadataColumn(key, key))
    values = known_values(activities, columns.values()) if columns else {}
    return [
        {"name": name, "label": column.label, "value": filters.get(name, ""), "values": values.get(column.key, [])}
        for name, column in columns.items()
    ]


def _query_of(query: Mapping[str, str], value: str) -> str:
    """Return the query of the page of one value of the groups; "" for groups that are no metadata."""
    group_by = query["by"]
    return urlencode({**query, "by": "task", group_by: value}) if group_by.startswith(METADATA) else ""
