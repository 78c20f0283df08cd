"""The admin of activities: a list to find and steer them, a page of each, and the dashboard; put together here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import ShowFacets
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.expressions import OrderBy
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _

from ..changelists import StorableLookups
from ..expressions import ActiveFirst
from ..models import Activity, ActivityLog
from ..parsing import parse_id
from .actions import SteeringAdmin
from .addresses import drop_impossible_selection, is_of_filter, without_unknown_lookups
from .columns import ListColumns
from .dashboard import DashboardPages
from .filters import FILTERS, METADATA, PARENT
from .list_page import list_context
from .pages import DetailPages
from .pagination import BoundedPaginator, LightChangeList
from .pauses import PausePages
from .row_actions import delete_many
from .search import search
from .usage import UsagePages


class ActivityAdmin(StorableLookups, ListColumns, SteeringAdmin, DetailPages, PausePages, DashboardPages, UsagePages):
    """Activities, read-only but for the verbs. Reads no table to its end, whatever its size."""

    list_filter = FILTERS
    list_per_page = 50
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    paginator = BoundedPaginator
    search_fields = ("agent_id",)
    search_help_text = _("Id, task, metadata value, or key=value")
    list_fullwidth = True  # django-unfold's

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        """Return what `ActivityQuerySet.active_first` orders by, or the `ordering` of a subclass."""
        return list(self.ordering or [OrderBy(ActiveFirst("status")), F("agent_id").desc()])

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the light change list, on top of the base's."""
        base = super().get_changelist(request, **kwargs)
        return type("ActivityChangeList", (LightChangeList, base), {})

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Return whether the address may ask so: for nothing but the filters, since any other lookup reads all rows."""
        filters = self.list_filter if request is None else self.get_list_filter(request)
        return lookup == PARENT or lookup.startswith(f"{METADATA}.") or is_of_filter(lookup, filters, self)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Activity], search_term: str
    ) -> tuple[QuerySet[Activity], bool]:
        """Return what the search finds, and whether there may be duplicates in it.

        Beside its own search, which stands for `agent_id` in `search_fields`, it looks into the fields that a subclass
        names there, as Django does.
        """
        names = list(self.get_search_fields(request))
        if names == list(ActivityAdmin.search_fields):
            return search(queryset, search_term), False
        found, has_duplicates = super().get_search_results(request, queryset, search_term)
        if "agent_id" in names and search_term:
            found |= search(queryset, search_term)
        return found, has_duplicates

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, with a link to the dashboard for those who may see it."""
        if (known := without_unknown_lookups(self, request)) is not None:
            return HttpResponseRedirect(f"{request.path}?{known}" if known else request.path)
        drop_impossible_selection(request)
        own = {"may_monitor": self.has_monitor_permission(request), "title": _("Activities"), "subtitle": None}
        own |= self.approvals_tab(request)
        response = super().changelist_view(request, {**own, **(extra_context or {})})
        if isinstance(response, TemplateResponse) and response.context_data and "cl" in response.context_data:
            response.context_data.update(list_context(request, self, response.context_data["cl"]))
        return response

    def get_deleted_objects(
        self, objs: Sequence[Activity] | QuerySet[Activity], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return what Django's page of one deletion names: the activity, and how many lines go with it."""
        lines = ActivityLog.objects.filter(activity__in=objs).count()
        counts = {str(self.opts.verbose_name_plural): len(objs), str(_("log lines")): lines}
        return [str(one) for one in objs], counts, set(), []

    def delete_model(self, request: HttpRequest, obj: Activity) -> None:
        """Delete one, unless it has been queued again in the meantime."""
        with transaction.atomic():
            if not delete_many(Activity.objects.filter(pk=obj.pk)).done:
                raise PermissionDenied

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Activity | None:
        """Return a visible activity of this id, if there is one."""
        try:
            found: Activity | None = self.get_queryset(request).filter(pk=parse_id(object_id)).first()
        except ValueError:
            return None
        return found
