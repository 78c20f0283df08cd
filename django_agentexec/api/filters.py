"""The list's filters, by django-filter, and its orders. What has no index is looked for in a bounded part."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, F, Func, Q, Subquery
from django.db.models.sql.compiler import SQLCompiler
from django_filters import CharFilter, ChoiceFilter, Filter, MultipleChoiceFilter, UUIDFilter
from django_filters.rest_framework import FilterSet, IsoDateTimeFilter
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from ..conf import conf
from ..ids import HEX_DIGITS, id_range
from ..models import ACTIVE, Activity, ActivityQuerySet, Status
from ..parsing import parse_id
from .openapi import query_parameter
from .parameters import check_number_of_values, metadata_of

MAX_SEARCH = 100  # characters
# So many hexadecimal digits are the beginning of an id; fewer may be a word.
_ID_DIGITS = 8
_ID_PREFIX = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}[0-9a-f-]{{0,28}}", re.IGNORECASE)
# What every database and time zone can compare; activities are from within.
_FIRST, _LAST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)

ORDERS = {
    "created": F("agent_id").asc(),
    "-created": F("agent_id").desc(),
}
"""The orders one can ask for. Ids are in the order of creation."""


class OneOf(Func):
    """Whether a column's value is one that a subquery gives.

    PostgreSQL is made to look at the subquery first: from `IN` it makes a join, for which it reads the whole table.
    """

    output_field = BooleanField()
    template = "%(expressions)s"
    arg_joiner = " IN "

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """Return the SQL."""
        return self.as_sql(compiler, connection, template="%(expressions)s)", arg_joiner=" = ANY (ARRAY")


class _Rows(Subquery):
    """A subquery that finds nothing where its conditions are impossible, so that the whole question finds nothing.

    Django would write NULL in its place, which no database takes there.
    """

    empty_result_set_value = NotImplemented


class MomentFilter(IsoDateTimeFilter):  # type: ignore[misc]  # django-filter has no types
    """A moment; one before 1970 or after 9999 is taken for the nearest that every database can compare."""

    def filter(self, qs: ActivityQuerySet, value: datetime | None) -> ActivityQuerySet:
        """Apply the moment, if one is given."""
        if value is not None:
            value = min(max(value, _FIRST), _LAST)
        filtered: ActivityQuerySet = super().filter(qs, value)
        return filtered


class _IdField(forms.UUIDField):
    def to_python(self, value: Any) -> Any:
        try:
            return parse_id(value) if value else None
        except ValueError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None


class IdFilter(UUIDFilter):  # type: ignore[misc]  # as above
    """An id in one of its usual forms; `uuid.UUID` alone also takes the digits of other scripts."""

    field_class = _IdField


class ActivityFilter(FilterSet):  # type: ignore[misc]  # as above
    """Filters of the list of activities."""

    status = MultipleChoiceFilter(choices=Status.choices, distinct=False, label="In one of these states.")
    agent_type = CharFilter(max_length=200, strip=False, label="Name of the task.")
    queue = CharFilter(max_length=100, strip=False, label="Name of the queue.")
    parent = IdFilter("parent_id", label="Id of the activity whose handler enqueued it.")
    created_after = MomentFilter("created_at", "gte", label="Created at this moment or later.")
    created_before = MomentFilter("created_at", "lt", label="Created before this moment.")
    started_after = MomentFilter("started_at", "gte", label="Started at this moment or later.")
    started_before = MomentFilter("started_at", "lt", label="Started before this moment.")
    finished_after = MomentFilter("finished_at", "gte", label="Finished at this moment or later.")
    finished_before = MomentFilter("finished_at", "lt", label="Finished before this moment.")
    search = CharFilter(
        method="_afterwards",
        max_length=MAX_SEARCH,
        strip=False,
        label=f"The beginning of an id ({_ID_DIGITS} digits or more), or a part of the task's name or of the latest "
        "message. Text is looked for in as many of the list's first activities as are counted.",
    )
    ordering = ChoiceFilter(
        method="_afterwards",
        choices=[(name, name) for name in ORDERS],
        label="Active ones first, then the newest, unless given.",
    )

    searches_errors = False
    """Whether the caller may find out what the texts of errors hold."""

    def filter_queryset(self, queryset: ActivityQuerySet) -> ActivityQuerySet:
        """Return the activities asked for, in order."""
        for key, texts in metadata_of(self.request).items():
            queryset = queryset.for_metadata_text(key, *texts)
        queryset = super().filter_queryset(queryset)
        asked = self.form.cleaned_data
        if asked["search"]:
            queryset = searched(queryset, asked["search"], searches_errors=self.searches_errors)
        if asked["ordering"]:
            return queryset.order_by(ORDERS[asked["ordering"]])
        return _in_default_order(queryset, asked["status"])

    def _afterwards(self, queryset: ActivityQuerySet, name: str, value: str) -> ActivityQuerySet:
        """Leave it to `filter_queryset`, which has all other conditions by then."""
        return queryset


def filtered(activities: ActivityQuerySet, request: Request, *, searches_errors: bool) -> ActivityQuerySet:
    """Return those of `activities` that the request asks for, in order; raise 400 for an impossible value.

    Without `searches_errors`, the text of an error that the caller may not read is not searched either.
    """
    given = dict(request.query_params.lists())
    for name in ActivityFilter.base_filters:
        check_number_of_values(name, given.get(name, []))
        if name != "status" and len(given.get(name, [])) > 1:
            raise ValidationError({name: [f"Give one value, not {len(given[name])}."]})
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
    """Return the filters as OpenAPI's parameters."""
    return [
        query_parameter(name, {**_json_schema(one), "description": str(one.label)})
        for name, one in ActivityFilter.base_filters.items()
    ]


def _json_schema(one: Filter) -> dict[str, Any]:
    match one:
        case MultipleChoiceFilter():
            return {"type": "array", "items": {"type": "string", "enum": [value for value, _ in one.extra["choices"]]}}
        case ChoiceFilter():
            return {"type": "string", "enum": [value for value, _ in one.extra["choices"]]}
        case MomentFilter():
            return {"type": "string", "format": "date-time"}
        case UUIDFilter():
            return {"type": "string", "format": "uuid"}
    # No row can hold a NUL character, so none can be asked for.
    return {"type": "string", "minLength": 1, "maxLength": one.extra["max_length"], "pattern": r"^[^\u0000]*$"}


def searched(activities: ActivityQuerySet, text: str, *, searches_errors: bool = False) -> ActivityQuerySet:
    """Return those whose id begins with `text`; or those with the text, of as many first ones as are counted."""
    if _ID_PREFIX.fullmatch(text):
        return activities.filter(agent_id__range=id_range(text.replace("-", "")[:HEX_DIGITS]))
    first = activities.active_first().values("agent_id")[: conf.COUNT_LIMIT]
    within = Activity.objects.using(activities.db).filter(OneOf("agent_id", _Rows(first)))
    in_message = Q(latest_log_message__icontains=text)
    if not searches_errors:
        in_message &= Q(error="") | Q(public_error__isnull=False)
    return within.filter(Q(agent_type__icontains=text) | in_message)


def _in_default_order(activities: ActivityQuerySet, statuses: Collection[str]) -> ActivityQuerySet:
    """Order them active first; within one of the two parts by id alone, for which there are more indexes."""
    if statuses and len({status in ACTIVE for status in statuses}) == 1:
        return activities.order_by("-agent_id")
    return activities.active_first()
