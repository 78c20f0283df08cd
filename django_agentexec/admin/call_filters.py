"""The list's filters by what agents have called, and by what that has cost."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from django.contrib import messages
from django.contrib.admin import ListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..calls.queries import with_call
from ..models import Activity, ActivityQuerySet, AgentCall, CallKind
from ..money import rounded
from ..validation import is_storable
from .formatting import money

SAMPLE = 30  # newest activities whose calls are offered
MAX_NAMES = 20  # offered names of each kind
MAX_NAME = 200  # characters; the column's size
MAX_COST = Decimal(10) ** 9
_COSTS = ("min_cost", "max_cost")
_CACHE = "_agentexec_called_names"


def called_names(request: HttpRequest, activities: ActivityQuerySet) -> dict[str, list[str]]:
    """Return the names of models and tools that the newest of these activities have called; one query a request."""
    if not hasattr(request, _CACHE):
        newest = activities.order_by("-agent_id").values("agent_id")[:SAMPLE]
        calls = AgentCall.objects.using(activities.db).filter(
            activity_id__in=newest, kind__in=[CallKind.MODEL, CallKind.TOOL]
        )
        found: dict[str, list[str]] = {}
        for kind, name in sorted(set(calls.order_by().values_list("kind", "name").distinct())):
            found.setdefault(kind, []).append(name)
        setattr(request, _CACHE, found)
    names: dict[str, list[str]] = getattr(request, _CACHE)
    return names


class FormFilter(ListFilter):
    """A filter with a form, for values that cannot be listed."""

    parameter_names: tuple[str, ...]
    """The parameters of the form."""

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        given = {name: params.pop(name)[-1].strip() for name in self.parameter_names if name in params}
        self.values = {name: text for name, text in given.items() if text}

    def has_output(self) -> bool:
        """Return whether to show it: always."""
        return True

    def expected_parameters(self) -> list[str | None]:
        """Return the parameters of the request that are its own."""
        return list(self.parameter_names)

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """The request's other parameters, which the form must keep (not the page: it is another list's)."""
        lists = self.request.GET.lists()
        return [(name, value) for name, values in lists for value in values if name not in (*self.parameter_names, "p")]


class _CallFilter(FormFilter):
    """Activities that have called a model or tool with this name."""

    template = "admin/agentexec/activity/call_filter.html"
    parameter_name: str
    kind: CallKind

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        self.parameter_names = (self.parameter_name,)
        super().__init__(request, params, model, model_admin)
        self.names = called_names(request, model_admin.get_queryset(request)).get(self.kind, [])[:MAX_NAMES]

    @property
    def value(self) -> str:
        """The name that was asked for, or ""."""
        return self.values.get(self.parameter_name, "")

    def queryset(self, request: HttpRequest, queryset: QuerySet[Activity]) -> QuerySet[Activity]:
        """Return the activities with such a call."""
        assert isinstance(queryset, ActivityQuerySet)
        if not self.value:
            return queryset
        is_possible = is_storable(self.value) and len(self.value) <= MAX_NAME
        return with_call(queryset, self.kind, self.value) if is_possible else queryset.none()

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """Yield the names that are offered, and the name that was asked for."""
        for name in dict.fromkeys([*self.names, *([self.value] if self.value else [])]):
            yield {
                "selected": name == self.value,
                "display": name,
                "query_string": changelist.get_query_string({self.parameter_name: name}, ["p"]),
            }


class ModelFilter(_CallFilter):
    """One model."""

    title: Any = _("model")
    parameter_name = "model"
    kind = CallKind.MODEL


class ToolFilter(_CallFilter):
    """One tool."""

    title: Any = _("tool")
    parameter_name = "tool"
    kind = CallKind.TOOL


class CostFilter(FormFilter):
    """The known cost, from and to an amount of US dollars."""

    title: Any = _("cost")
    parameter_name = "min_cost"  # newer versions of django-unfold ask every filter for it
    parameter_names = _COSTS
    template = "admin/agentexec/activity/cost_filter.html"

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        amounts = {name: _amount(text) for name, text in self.values.items()}
        self.amounts = {name: amount for name, amount in amounts.items() if amount is not None}
        if len(self.amounts) < len(self.values):
            text = _("A cost is an amount of US dollars such as 0.50; the filter was ignored.")
            messages.warning(request, text, fail_silently=True)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Activity]) -> QuerySet[Activity]:
        """Return the activities with such a cost; none whose cost is unknown."""
        lookups = {"min_cost": "cost__gte", "max_cost": "cost__lte"}
        return queryset.filter(**{lookups[name]: amount for name, amount in self.amounts.items()})

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """Yield the range in use."""
        if self.amounts:
            low, high = (money(amount) if amount is not None else "" for amount in map(self.amounts.get, _COSTS))
            display = f"{low} \N{EN DASH} {high}"
            if not (low and high):
                display = _("from %(amount)s") % {"amount": low} if low else _("up to %(amount)s") % {"amount": high}
            yield {
                "selected": True,
                "display": display,
                "query_string": changelist.get_query_string({}, [*self.parameter_names, "p"]),
            }


def _amount(text: str) -> Decimal | None:
    """Return an amount of US dollars, or None for a text that is none."""
    try:
        amount = Decimal(text.replace(",", ".")) if len(text) <= 30 and text.isascii() else Decimal("NaN")
    except InvalidOperation:
        return None
    # Rounded, since PostgreSQL reads no number such as 1e-99999.
    return rounded(amount) if amount.is_finite() and 0 <= amount <= MAX_COST else None
