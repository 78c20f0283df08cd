"""Filters and orders of the list of activities. Text without an index is searched in a bounded number of rows."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, F, Func, Q, Subquery
from django.db.models.sql.compiler import SQLCompiler
from django.utils.translation import gettext as _
from django_filters import CharFilter, ChoiceFilter, Filter, MultipleChoiceFilter, NumberFilter, UUIDFilter
from django_filters.rest_framework import FilterSet, IsoDateTimeFilter
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from ..calls.queries import with_call
from ..conf import conf
from ..ids import HEX_DIGITS, id_range
from ..models import ACTIVE, Activity, ActivityQuerySet, CallKind, Status, WaitingFor
from ..parsing import parse_id
from .errors import invalid_parameter
from .openapi import query_parameter
from .parameters import check_number_of_values, metadata_of

MAX_SEARCH = 100  # characters
_ID_DIGITS = 8  # text of this many hexadecimal digits is the beginning of an id; fewer may be a word
_ID_PREFIX = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}[0-9a-f-]{{0,28}}", re.IGNORECASE)
# The range that every database and time zone can compare.
_MIN_MOMENT, _MAX_MOMENT = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)

ORDERS = {
    "created": (F("agent_id").asc(),),
    "-created": (F("agent_id").desc(),),
    "cost": (F("cost").asc(), F("agent_id").asc()),
    "-cost": (F("cost").desc(), F("agent_id").desc()),
}
"""The orders by name. Ids are in the order of creation."""


class InSubquery(Func):
    """A condition: the value of a column is in the result of a subquery.

    On PostgreSQL, an array makes the planner run the subquery first. It turns `IN` into a join that reads the whole
    table.
    """

    output_field = BooleanField()
    template = "%(expressions)s"
    arg_joiner = " IN "

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        """Return the SQL."""
        return self.as_sql(compiler, connection, template="%(expressions)s)", arg_joiner=" = ANY (ARRAY")


class _Rows(Subquery):
    """A subquery that makes the whole query empty if its conditions are impossible.

    Django would insert NULL for it, which is a syntax error after `IN`.
    """

    empty_result_set_value = NotImplemented


class MomentFilter(IsoDateTimeFilter):  # type: ignore[misc]  # django-filter has no types
    """A time filter. Times before 1970 or after 9999 are replaced by the nearest that every database can compare."""

    def filter(self, qs: ActivityQuerySet, value: datetime | None) -> ActivityQuerySet:
        """Apply the filter, if a time is given."""
        if value is not None:
            value = min(max(value, _MIN_MOMENT), _MAX_MOMENT)
        filtered: ActivityQuerySet = super().filter(qs, value)
        return filtered


class _IdField(forms.UUIDField):
    def to_python(self, value: Any) -> Any:
        try:
            return parse_id(value) if value else None
        except ValueError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None


class IdFilter(UUIDFilter):  # type: ignore[misc]  # as above
    """A filter by id in one of its two usual forms; `uuid.UUID` also accepts digits of other scripts."""

    field_class = _IdField


class CostFilter(NumberFilter):  # type: ignore[misc]  # as above
    """A filter by cost, within the range of the column."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, min_value=0, max_value=10**9, max_digits=20, decimal_places=10, **kwargs)

    def get_max_validator(self) -> None:
        """Return None: `max_value` is given."""


class ActivityFilter(FilterSet):  # type: ignore[misc]  # as above
    """Filters of the list of activities."""

    status = MultipleChoiceFilter(choices=Status.choices, distinct=False, label="One of these statuses.")
    waiting_for = MultipleChoiceFilter(
        choices=WaitingFor.choices, distinct=False, label="Suspended for one of these reasons."
    )
    agent_type = CharFilter(max_length=200, strip=False, label="Name of the task.")
    queue = CharFilter(max_length=100, strip=False, label="Name of the queue.")
    parent = IdFilter("parent_id", label="Id of the parent activity.")
    created_after = MomentFilter("created_at", "gte", label="Created at this time or later.")
    created_before = MomentFilter("created_at", "lt", label="Created before this time.")
    started_after = MomentFilter("started_at", "gte", label="Started at this time or later.")
    started_before = MomentFilter("started_at", "lt", label="Started before this time.")
    finished_after = MomentFilter("finished_at", "gte", label="Finished at this time or later.")
    finished_before = MomentFilter("finished_at", "lt", label="Finished before this time.")
    search = CharFilter(
        method="_apply_later",
        max_length=MAX_SEARCH,
        strip=False,
        label=f"The first digits of an id (at least {_ID_DIGITS}), or a part of the task's name or of the latest "
        "message. Text is searched in the first activities of the list, up to the number that is counted.",
    )
    ordering = ChoiceFilter(
        method="_apply_later",
        choices=[(name, name) for name in ORDERS],
        label="By default, active activities first, then the newest. By cost: only activities with a known cost.",
    )

    model = CharFilter(
        method="_with_call", max_length=200, strip=False, label="Name of a model that its agents have called."
    )
    tool = CharFilter(
        method="_with_call", max_length=200, strip=False, label="Name of a tool that its agents have called."
    )
    min_cost = CostFilter("cost", "gte", label="Known cost of at least this many US dollars.")
    max_cost = CostFilter("cost", "lte", label="Known cost of at most this many US dollars.")

    searches_errors = False
    """Whether the search includes texts of errors that are not public."""

    def filter_queryset(self, queryset: ActivityQuerySet) -> ActivityQuerySet:
        """Return the matching activities in the requested order."""
        for key, texts in metadata_of(self.request).items():
            queryset = queryset.for_metadata_text(key, *texts)
        queryset = super().filter_queryset(queryset)
        values = self.form.cleaned_data
        if values["search"]:
            queryset = searched(queryset, values["search"], searches_errors=self.searches_errors)
        if values["ordering"].endswith("cost"):
            queryset = queryset.filter(cost__isnull=False)
        if values["ordering"]:
            return queryset.order_by(*ORDERS[values["ordering"]])
        return _in_default_order(queryset, values["status"])

    def _with_call(self, queryset: ActivityQuerySet, name: str, value: str) -> ActivityQuerySet:
        """Return the activities with a call of this model or tool."""
        return with_call(queryset, CallKind.MODEL if name == "model" else CallKind.TOOL, value)

    def _apply_later(self, queryset: ActivityQuerySet, name: str, value: str) -> ActivityQuerySet:
        """Return the queryset as it is; `filter_queryset` applies this filter after all others."""
        return queryset


def filtered(activities: ActivityQuerySet, request: Request, *, searches_errors: bool) -> ActivityQuerySet:
    """Return the activities that match the request, in its order; raise 400 for an impossible value.

    Without `searches_errors`, texts of errors that are not public are not searched.
    """
    given = dict(request.query_params.lists())
    for name in ActivityFilter.base_filters:
        check_number_of_values(name, given.get(name, []))
        if name not in ("status", "waiting_for") and len(given.get(name, [])) > 1:
            raise invalid_parameter(name, _("Give one value, not %(count)s.") % {"count": len(given[name])})
    filters = ActivityFilter(request.query_params, activities, request=request)
    filters.searches_errors = searches_errors
    if not filters.is_valid():
        raise ValidationError(
            {
                name: [f"{', '.join(given[name])[:80]!r}: {text}" for text in texts]
                for name, texts in filters.errors.items()
            }
        )
    found: ActivityQuerySet = filters.qs
    return found


def filter_parameters() -> list[OpenApiParameter]:
    """Return the filters as parameters for OpenAPI."""
    return [
        query_parameter(name, {**_json_schema(filter_), "description": str(filter_.label)})
        for name, filter_ in ActivityFilter.base_filters.items()
    ]


def _json_schema(filter_: Filter) -> dict[str, Any]:
    match filter_:
        case MultipleChoiceFilter():
            values = [choice[0] for choice in filter_.extra["choices"]]
            return {"type": "array", "items": {"type": "string", "enum": values}}
        case ChoiceFilter():
            return {"type": "string", "enum": [choice[0] for choice in filter_.extra["choices"]]}
        case CostFilter():
            return {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,10})?$"}
        case MomentFilter():
            return {"type": "string", "format": "date-time"}
        case UUIDFilter():
            return {"type": "string", "format": "uuid"}
    # No database can store a NUL character.
    return {"type": "string", "minLength": 1, "maxLength": filter_.extra["max_length"], "pattern": r"^[^\u0000]*$"}


def searched(activities: ActivityQuerySet, text: str, *, searches_errors: bool = False) -> ActivityQuerySet:
    """Return the activities whose id begins with `text`, or that contain it among the first `COUNT_LIMIT`."""
    if _ID_PREFIX.fullmatch(text):
        return activities.filter(agent_id__range=id_range(text.replace("-", "")[:HEX_DIGITS]))
    first = activities.active_first().values("agent_id")[: conf.COUNT_LIMIT]
    within = Activity.objects.using(activities.db).filter(InSubquery("agent_id", _Rows(first)))
    in_message = Q(latest_log_message__icontains=text)
    if not searches_errors:
        in_message &= Q(error="") | Q(public_error__isnull=False)
    return within.filter(Q(agent_type__icontains=text) | in_message)


def _in_default_order(activities: ActivityQuerySet, statuses: Collection[str]) -> ActivityQuerySet:
    """Order active activities first. Of only active, or only ended activities, the id alone can use more indexes."""
    if statuses and len({status in ACTIVE for status in statuses}) == 1:
        return activities.order_by("-agent_id")
    return activities.active_first()
