"""A paginator and a change list that never read a large table to the end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

from ..concurrency.rules import note_pauses
from ..conf import conf
from ..models import Activity, ActivityQuerySet, HookFlag, Status
from ..parsing import parse_digits
from ..redaction import redact_row
from .access import visible
from .children import add_result_lines, child_counts

if TYPE_CHECKING:  # generic for the type checker only
    ActivityPaginator = Paginator[Activity]
else:
    ActivityPaginator = Paginator


class AtLeast(int):
    """A lower bound, written with a plus sign: "10,000+"."""

    def __str__(self) -> str:
        # With grouping on, Django's formats group this text's characters, whatever they are.
        return int.__repr__(self) if settings.USE_THOUSAND_SEPARATOR else f"{int(self):,}+"


class BoundedPaginator(ActivityPaginator):
    """Counts up to `AGENTEXEC["COUNT_LIMIT"]`; rows beyond that are found by a filter, not by their page."""

    object_list: QuerySet[Activity]

    @cached_property
    def count(self) -> int:
        """The number of rows, or an `AtLeast`."""
        return bounded_count(self.object_list)


def bounded_count(rows: QuerySet[Any]) -> int:
    """Return the number of rows, up to `AGENTEXEC["COUNT_LIMIT"]`, and an `AtLeast` if there are more.

    Of any model: Django pages an activity's entries in the admin's log with the same paginator.
    """
    found = rows.order_by()[: conf.COUNT_LIMIT + 1].count()
    return AtLeast(conf.COUNT_LIMIT) if found > conf.COUNT_LIMIT else found


@dataclass(frozen=True)
class RowPage:
    """A page of a list that does not count its rows."""

    rows: list[Any]
    number: int
    """From 1."""
    has_more: bool
    """Whether there is a next page."""


def row_page(request: HttpRequest, rows: QuerySet[Any], size: int) -> RowPage:
    """Return the page `?p=` of `rows`; one query, and no offset beyond `AGENTEXEC["COUNT_LIMIT"]` pages."""
    number = min(parse_digits(request.GET.get("p", "")) or 1, conf.COUNT_LIMIT)
    found = list(rows[(number - 1) * size : number * size + 1])
    return RowPage(found[:size], number, len(found) > size)


class LightChangeList(ChangeList):
    """A change list that reads only the columns it shows, in an order that an index has."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Activity]:
        """Leave out the heavy columns."""
        activities = super().get_queryset(request, *args, **kwargs)
        assert isinstance(activities, ActivityQuerySet)
        return activities.without_payloads()

    def get_results(self, request: HttpRequest) -> None:
        """Read the page with the result lines and children's counts; redact it for users who may not monitor."""
        super().get_results(request)
        rows = list(self.result_list)
        self.result_list = rows
        note_pauses(rows)
        add_result_lines(rows)
        parents = [
            row.pk for row in rows if row.is_suspended or (row.status == Status.RUNNING and _may_have_children(row))
        ]
        counts = child_counts(visible(request, Activity.objects.all()), parents)
        for row in rows:
            row.child_counts = counts.get(row.pk)
        if not self.model_admin.has_monitor_permission(request):  # type: ignore[attr-defined]  # ours
            for row in rows:
                redact_row(row)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Activity]) -> Any:
        """Let the id, which Django appends to make an order total, run the same way as the first column."""
        ordering = list(super().get_ordering(request, queryset))
        if ordering[-1] == "-pk" and isinstance(ordering[0], str) and not ordering[0].startswith("-"):
            ordering[-1] = "pk"
        return ordering


def _may_have_children(row: Activity) -> bool:
    return bool(row.hook_flags & HookFlag.PARENT)
