"""Usage and cost of model calls, summed by day, task, model or metadata, also as CSV, and of activities with children.

Each report is six queries.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.expressions import Expression
from django.db.models.functions import TruncDay
from django.utils.translation import gettext as _
from pydantic import BaseModel, Field, computed_field

from ..exceptions import InvalidOption
from ..expressions import MetadataText
from ..models import Activity, ActivityQuerySet, AgentCall, CallQuerySet
from ..money import Money, plain, rounded
from ..validation import is_storable
from .period import Period
from .runs import median_costs, replayed_cost, unrecorded_runs

MAX_GROUPS = 500
MAX_KEY = 200  # characters of a metadata key
METADATA = "metadata."
MAX_TREE = 10_000  # activities
CSV_COLUMNS = (
    *("calls", "runs", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "total_tokens"),
    *("cost", "unpriced_calls", "unpriced_tokens", "median_cost"),
)
_MONEY_COLUMNS = ("cost", "median_cost")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
SUMS: dict[str, Any] = {
    "sum_calls": Count("id"),
    "sum_runs": Count("activity_id", distinct=True),
    **{f"sum_{name}": Sum(name, default=0) for name in _TOKENS},
    "sum_cost": Sum("cost"),
    "sum_unpriced_calls": Count("id", filter=Q(cost__isnull=True)),
    "sum_unpriced_tokens": Sum(F("input_tokens") + F("output_tokens"), filter=Q(cost__isnull=True), default=0),
}


class UsageSchema(BaseModel):
    """The sums of model calls."""

    calls: int = 0
    runs: int = 0
    """Activities that made the calls."""
    input_tokens: int = 0
    cached_tokens: int = 0
    """Part of the input tokens."""
    output_tokens: int = 0
    reasoning_tokens: int = 0
    """Part of the output tokens."""
    cost: Money | None = Decimal(0)
    """US dollars, of the calls whose price is known; null: no price is known."""
    unpriced_calls: int = 0
    """Calls whose cost is unknown, and is missing in `cost`."""
    unpriced_tokens: int = 0

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def total_tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens


class UsageGroupSchema(UsageSchema):
    """The sums of one day, task, model or value."""

    key: str | None
    """The day as YYYY-MM-DD, the task, the model or the value; null: the metadata does not have the key."""


class ReportGroupSchema(UsageGroupSchema):
    """A group of a report."""

    median_cost: Money | None = None
    """The median cost of a run in this group, of the runs whose cost is known; null: none is known."""


class ReportTotalsSchema(UsageSchema):
    """The sums of all groups of a report."""

    median_cost: Money | None = None
    """The median cost of a run, of the runs whose cost is known; null: none is known."""
    replayed_cost: Money = Decimal(0)
    """The cost of calls that the last attempt of a complete run has read from its records instead of making them again.
    Each call counts once."""
    unrecorded_runs: int = 0
    """Activities created in the period that have a cost, but no recorded calls; only these two fields include them."""
    unrecorded_cost: Money = Decimal(0)
    """The known cost of these activities."""


class UsageReportSchema(BaseModel):
    """The usage of a period by group."""

    group_by: str
    first: date = Field(serialization_alias="from")
    """The first day."""
    last: date = Field(serialization_alias="to")
    """The last day, which is included."""
    time_zone: str
    """The time zone of the days."""
    currency: str = "USD"
    groups: list[ReportGroupSchema]
    """Days in their order, other groups by cost, the highest first."""
    has_more_groups: bool = False
    """Whether there are groups beyond these, which only the totals include."""
    totals: ReportTotalsSchema


def usage_report(activities: ActivityQuerySet, period: Period, group_by: str) -> UsageReportSchema:
    """Return the usage of `activities` in a period, by `day`, `task`, `model` or `metadata.<key>`.

    Raises `InvalidOption` for another group.
    """
    groups, has_more = usage_groups(activities, period, group_by)
    medians = group_medians(activities, period, group_by, groups, has_more)
    return UsageReportSchema(
        group_by=group_by,
        first=period.first,
        last=period.last,
        time_zone=str(period.zone),
        groups=[ReportGroupSchema(**_fields(group), median_cost=medians.get(group.key)) for group in groups],
        has_more_groups=has_more,
        totals=report_totals(activities, period),
    )


def report_totals(activities: ActivityQuerySet, period: Period) -> ReportTotalsSchema:
    """Return the sums of a period, with the median of its runs and what replays have saved; four queries."""
    calls, totals = calls_of(activities, period), usage_totals(activities, period)
    number, cost = unrecorded_runs(activities, period)
    return ReportTotalsSchema(
        **_fields(totals),
        median_cost=median_costs(calls).get(None),
        replayed_cost=replayed_cost(calls),
        unrecorded_runs=number,
        unrecorded_cost=cost,
    )


def group_medians(
    activities: ActivityQuerySet, period: Period, group_by: str, groups: Sequence[UsageGroupSchema], has_more: bool
) -> dict[str | None, Decimal]:
    """Return the median cost of a run by group; one query. `has_more` is whether there are more than these groups."""
    keys = [group.key for group in groups] if has_more else None
    return median_costs(calls_of(activities, period), group_expression(group_by, period), keys)


def usage_groups(activities: ActivityQuerySet, period: Period, group_by: str) -> tuple[list[UsageGroupSchema], bool]:
    """Return the sums by group, at most `MAX_GROUPS`, and whether there are more groups; one query."""
    calls = calls_of(activities, period).order_by().values(group=group_expression(group_by, period))
    order = ["group"] if group_by == "day" else [F("sum_cost").desc(nulls_last=True), "-sum_input_tokens", "group"]
    rows = list(calls.annotate(**SUMS).order_by(*order)[: MAX_GROUPS + 1])
    return [group_of(row) for row in rows[:MAX_GROUPS]], len(rows) > MAX_GROUPS


def usage_totals(activities: ActivityQuerySet, period: Period) -> UsageSchema:
    """Return the sums of a period; one query."""
    return usage_of(calls_of(activities, period))


def usage_of(calls: QuerySet[AgentCall]) -> UsageSchema:
    """Return the sums of billed calls; one query."""
    return UsageSchema(**_values(calls.order_by().aggregate(**SUMS)))


def models_of(calls: QuerySet[AgentCall]) -> list[UsageGroupSchema]:
    """Return the sums of billed calls by model, the highest cost first; one query."""
    models = calls.order_by().values(group=F("name")).annotate(**SUMS)
    return [group_of(row) for row in models.order_by(F("sum_cost").desc(nulls_last=True), "group")[:MAX_GROUPS]]


def calls_of(activities: ActivityQuerySet, period: Period) -> QuerySet[AgentCall]:
    """Return the billed calls of `activities` that started in a period."""
    calls = AgentCall.objects.using(activities.db).billed()
    calls = calls.filter(started_at__gte=period.start, started_at__lt=period.end)
    if not _is_unrestricted(activities):
        calls = calls.filter(activity__in=activities.order_by().values("pk"))
    return calls


def tree_ids(agent_id: UUID, using: str) -> list[UUID]:
    """Return the id of an activity and those of all activities below it, at most `MAX_TREE`; one query."""
    connection, meta = connections[using], Activity._meta
    table, key = connection.ops.quote_name(meta.db_table), connection.ops.quote_name(str(meta.pk.column))
    field = meta.pk
    sql = (
        f"WITH RECURSIVE tree(id) AS (SELECT {key} FROM {table} WHERE {key} = %s "
        f"UNION SELECT child.{key} FROM {table} child JOIN tree ON child.parent_id = tree.id) "
        f"SELECT id FROM tree LIMIT {MAX_TREE}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [field.get_db_prep_value(agent_id, connection)])
        return [field.to_python(row[0]) for row in cursor.fetchall()]


def tree_calls(agent_id: UUID, activities: ActivityQuerySet) -> CallQuerySet:
    """Return the billed calls of an activity and of those below it that are among `activities`; one query."""
    visible = activities.filter(pk__in=tree_ids(agent_id, activities.db)).order_by().values("pk")
    return AgentCall.objects.using(activities.db).billed().filter(activity__in=visible)


def tree_usage(agent_id: UUID, activities: ActivityQuerySet) -> tuple[UsageSchema, list[UsageGroupSchema]]:
    """Return the usage of an activity and of those below it that are among `activities`, in total and by model.

    All attempts are included. Three queries.
    """
    calls = tree_calls(agent_id, activities)
    return usage_of(calls), models_of(calls)


def usage_csv(report: UsageReportSchema) -> str:
    """Return the groups of a report as CSV, and the totals in the last line. An unknown cost is empty."""
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow([report.group_by, *CSV_COLUMNS])
    for group in report.groups:
        writer.writerow([_csv_cell(group.key or ""), *_csv_numbers(group)])
    writer.writerow(["total", *_csv_numbers(report.totals)])
    return text.getvalue()


def _csv_numbers(sums: Any) -> list[object]:
    values = {name: getattr(sums, name) for name in CSV_COLUMNS}
    return [plain(value) if name in _MONEY_COLUMNS and value is not None else value for name, value in values.items()]


def _csv_cell(text: str) -> str:
    """Return a text that no spreadsheet evaluates as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def group_expression(group_by: str, period: Period) -> Expression | F:
    """Return the expression of a group. Raises `InvalidOption` for an unknown group."""
    match group_by:
        case "day":
            return TruncDay("started_at", tzinfo=period.zone)
        case "task":
            return F("activity__agent_type")
        case "model":
            return F("name")
    key = group_by.removeprefix(METADATA)
    if key == group_by or not key or len(key) > MAX_KEY or not is_storable(key):
        text = _("%(name)r is not a group: give day, task, model or metadata.<key>, with a key of at most %(n)s "
                 "characters.")  # fmt: skip
        raise InvalidOption(text % {"name": group_by[:80], "n": MAX_KEY})
    return MetadataText("activity__metadata", key)


def _is_unrestricted(activities: ActivityQuerySet) -> bool:
    """Return whether these are all activities, so that calls need not be compared with them."""
    query = activities.query
    return not (query.where or query.is_sliced or query.combinator or query.distinct)


def group_of(row: Mapping[str, Any]) -> UsageGroupSchema:
    """Return the sums of a row of a query that is grouped by `group` and annotated with `SUMS`."""
    values = dict(row)
    key = values.pop("group")
    return UsageGroupSchema(key=key.date().isoformat() if isinstance(key, datetime) else key, **_values(values))


def _fields(sums: UsageSchema) -> dict[str, Any]:
    return {name: getattr(sums, name) for name in type(sums).model_fields}


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    values = {name.removeprefix("sum_"): value for name, value in row.items()}
    if values["cost"] is None and not values["calls"]:
        values["cost"] = Decimal(0)
    return {**values, "cost": None if values["cost"] is None else rounded(values["cost"])}
