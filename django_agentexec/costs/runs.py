"""The costs of single runs: their median, what replays have saved, and the most expensive runs with the reasons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Sum
from django.db.models.expressions import Expression
from django.db.models.functions import TruncDay
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from pydantic import BaseModel

from ..choices import CallKind, CallState, Status
from ..ids import first_id
from ..models import Activity, ActivityQuerySet, AgentCall
from ..money import Money, dollars, rounded
from .period import Period

MAX_RUNS = 100  # of a list
MAX_MODELS = 3  # that are named for a run
MANY_CALLS = 10  # of one tool, from which on it is named


class ExpensiveRunSchema(BaseModel):
    """A run with its cost in a period, and what has made it expensive."""

    agent_id: UUID
    agent_type: str
    cost: Money
    """US dollars, of its calls whose price is known; without its children."""
    calls: int
    """Answered calls of models, in all attempts."""
    repeated_calls: int
    """Those of them that a fresh retry has set aside, and those that have failed."""
    input_tokens: int
    cached_tokens: int
    """Part of the input tokens."""
    output_tokens: int
    largest_call: Money
    """The cost of its most expensive call."""
    attempts: int
    models: list[str]
    """The models with the highest cost, at most three."""
    tool: str | None
    """The tool with most calls; null: no calls of tools are recorded."""
    tool_calls: int
    """The number of the calls of this tool."""


def median_costs(
    calls: QuerySet[AgentCall], group: Expression | F | None = None, keys: Collection[str | None] | None = None
) -> dict[str | None, Decimal]:
    """Return the median cost of a run by group, of the runs whose cost is known; without a group, that of all runs.

    With `keys`, only those of these groups. One query, with the functions that all databases have.
    """
    priced = calls.filter(cost__isnull=False).order_by()
    if group is not None:
        priced = priced.annotate(grouping=group)
    if keys is not None:
        named = [key for key in keys if key is not None]
        priced = priced.filter(Q(grouping__in=named) | (Q(grouping__isnull=True) if None in keys else Q()))
    columns = ("grouping", "activity_id") if group is not None else ("activity_id",)
    runs = priced.values(*columns).annotate(spent=Sum("cost"))
    connection = connections[calls.db]
    try:
        inner, parameters = runs.query.get_compiler(calls.db).as_sql()
    except EmptyResultSet:
        return {}
    name = connection.ops.quote_name
    key, partition, outer = (
        (name("grouping"), f"PARTITION BY {name('grouping')}", f"GROUP BY {name('grouping')}")
        if group is not None
        else ("NULL", "", "")
    )
    spent, position, number = name("spent"), name("position"), name("number")
    # Of an odd number of runs, the middle cost; of an even number, the mean of both.
    sql = (
        f"SELECT {key}, AVG({spent}) FROM (SELECT runs.*, "
        f"ROW_NUMBER() OVER ({partition} ORDER BY {spent}) AS {position}, COUNT(*) OVER ({partition}) AS {number} "
        f"FROM ({inner}) runs) ranked WHERE 2 * {position} BETWEEN {number} AND {number} + 2 {outer}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows = [(key, rounded(Decimal(str(median)))) for key, median in cursor.fetchall() if median is not None]
    # A day is a datetime or its text.
    return {str(key)[:10] if isinstance(group, TruncDay) else key: median for key, median in rows}


def replayed_cost(calls: QuerySet[AgentCall]) -> Decimal:
    """Return the cost of the calls that the last attempt of a complete run has read instead of making them; one query.

    Each call counts once, however many attempts have read it. Runs that have not completed do not count, since it is
    not recorded how far their last attempt came.
    """
    replayed = calls.filter(
        state=CallState.DONE, set_aside=0, cost__gt=0, activity__status=Status.COMPLETE,
        activity__attempt__gt=F("attempt"),
    )  # fmt: skip
    spent: Decimal | None = replayed.order_by().aggregate(spent=Sum("cost"))["spent"]
    return rounded(spent or Decimal(0))


def unrecorded_runs(activities: ActivityQuerySet, period: Period) -> tuple[int, Decimal]:
    """Return how many of the activities created in a period have a cost, but no recorded calls, and the cost.

    Their runs are not durable, or their calls have been removed. One query.
    """
    created = activities.filter(agent_id__gte=first_id(period.start), agent_id__lt=first_id(period.end))
    calls = AgentCall.objects.using(activities.db).filter(activity_id=OuterRef("pk"), kind=CallKind.MODEL)
    found = created.filter(~Exists(calls), cost__gt=0).order_by().aggregate(runs=Count("pk"), spent=Sum("cost"))
    return found["runs"], rounded(found["spent"] or Decimal(0))


def expensive_runs(
    activities: ActivityQuerySet, calls: QuerySet[AgentCall], number: int
) -> list[tuple[Activity, ExpensiveRunSchema]]:
    """Return the activities among `activities` with the highest costs of `calls`; four queries."""
    is_repeated = ~Q(set_aside=0) | Q(state=CallState.FAILED)
    sums = calls.filter(cost__gt=0).order_by().values("activity_id").annotate(spent=Sum("cost"))
    costs = {row["activity_id"]: row["spent"] for row in sums.order_by("-spent", "activity_id")[:number]}
    if not costs:
        return []
    ids = list(costs)
    owners = activities.only("agent_id", "agent_type", "attempt", "metadata").in_bulk(ids)
    by_model: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    models = calls.filter(activity_id__in=ids).order_by().values("activity_id", "name").annotate(
        spent=Sum("cost"), calls=Count("id"), repeated=Count("id", filter=is_repeated), largest=Max("cost"),
        **{name: Sum(name, default=0) for name in ("input_tokens", "cached_tokens", "output_tokens")},
    )  # fmt: skip
    for row in models:
        by_model[row["activity_id"]].append({**row})
    tools = _most_called_tools(ids, calls.db)
    return [
        (owners[key], _expensive_run(owners[key], spent, by_model[key], *tools.get(key, (None, 0))))
        for key, spent in costs.items()
        if key in owners
    ]


def _most_called_tools(ids: Collection[UUID], using: str) -> dict[UUID, tuple[str, int]]:
    """Return the tool with most calls of each activity, with their number; one query."""
    tools = AgentCall.objects.using(using).filter(activity_id__in=ids, kind=CallKind.TOOL, attempt__gt=0).order_by()
    counts = tools.values("activity_id", "name").annotate(number=Count("id"))
    found: dict[UUID, tuple[str, int]] = {}
    for row in counts.order_by("number", "name"):
        found[row["activity_id"]] = row["name"], row["number"]
    return found


def _expensive_run(
    owner: Activity, spent: Decimal, models: list[dict[str, Any]], tool: str | None, tool_calls: int
) -> ExpensiveRunSchema:
    most_expensive = sorted(models, key=lambda row: (-(row["spent"] or 0), row["name"]))
    return ExpensiveRunSchema(
        agent_id=owner.pk,
        agent_type=owner.agent_type,
        cost=rounded(spent),
        calls=sum(row["calls"] for row in models),
        repeated_calls=sum(row["repeated"] for row in models),
        # The prices may have changed since the query of the sums.
        largest_call=rounded(max((row["largest"] for row in models if row["largest"] is not None), default=Decimal(0))),
        attempts=owner.attempt,
        models=[row["name"] for row in most_expensive[:MAX_MODELS]],
        tool=tool,
        tool_calls=tool_calls,
        **{name: sum(row[name] for row in models) for name in ("input_tokens", "cached_tokens", "output_tokens")},
    )


def reasons_of(run: ExpensiveRunSchema) -> list[str]:
    """Return what is likely to have made a run expensive."""
    found = []
    if run.tool is not None and run.tool_calls >= MANY_CALLS:
        text = _("the tool %(tool)s was called %(number)s times")
        found.append(text % {"tool": run.tool, "number": f"{run.tool_calls:,}"})
    if run.repeated_calls:
        text = ngettext(
            "%(number)s call failed or was made again", "%(number)s calls failed or were made again", run.repeated_calls
        )
        found.append(text % {"number": f"{run.repeated_calls:,}"})
    if run.attempts > 1:
        found.append(_("%(number)s attempts") % {"number": run.attempts})
    if run.calls > 1 and run.largest_call * 2 > run.cost:
        found.append(_("one call cost %(cost)s") % {"cost": dollars(run.largest_call)})
    return found
