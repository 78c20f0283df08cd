"""The contents of the page "Usage and cost", as plain values for its template."""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import F, Sum
from django.db.models.functions import TruncDay
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from ..costs.library import Rates, missing_library
from ..costs.period import Period, current_day
from ..costs.prices import MILLION, rates_of
from ..costs.usage import (
    SUMS,
    ReportTotalsSchema,
    UsageGroupSchema,
    UsageSchema,
    calls_of,
    group_expression,
    group_medians,
    group_of,
    report_totals,
    usage_groups,
    usage_totals,
)
from ..models import ActivityQuerySet
from ..money import dollars
from .expensive import expensive_lines
from .formatting import compact, count_text, money, percent

MAX_LINES = 20  # of a table; the CSV file has more
MAX_SERIES = 3  # groups with a colour of their own
RATE_DAYS = 7  # whose cost the forecast continues
BAR, GAP = 0.8, 0.4  # width of a bar in days; units of the drawing between two parts of a bar

NOT_APPLICABLE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

RANGES = ("today", "7d", "28d", "month")


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    label: str
    share: int | None
    runs: str
    tokens: str
    per_run: str
    median: str
    cost: str
    change: str
    is_unpriced: bool
    query: str = ""
    """The query of the page that shows this group alone; "" without one."""


@dataclass(frozen=True)
class ModelLine:
    """A line of the table of models."""

    name: str
    provider: str
    input: str
    cached: str
    output: str
    price: str
    cost: str
    saved: Decimal
    is_unpriced: bool


@dataclass(frozen=True)
class Bar:
    """A part of a bar: its series, and its place in a drawing of 100 by 100."""

    series: int
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Chart:
    """The cost per day: bars of the groups, one above the other."""

    bars: list[Bar]
    legend: list[tuple[int, str]]
    """Series and name, in the order of stacking from the top."""
    scale: list[str]
    """Labels of the vertical axis, from the top."""
    days: list[str]
    """Labels of the horizontal axis."""
    table: list[tuple[str, str]]
    """Day and cost, for people who cannot see the drawing."""


def period_of(name: str) -> Period:
    """Return the period of a range in the current time zone."""
    today = current_day()
    first = {"today": today, "7d": today - timedelta(days=6), "month": today.replace(day=1)}
    return Period.of(first.get(name, today - timedelta(days=27)), today)


def tiles(
    activities: ActivityQuerySet, period: Period, now: ReportTotalsSchema, before: UsageSchema, cached: Decimal
) -> dict[str, str]:
    """Return the figures above the chart; one query. `cached` is what the caches of the providers have saved."""
    forecast = _forecast(activities, period.last)
    return {
        "median": money(now.median_cost) if now.runs else NOT_APPLICABLE,
        "saved": money(cached + now.replayed_cost),
        "saved_by_cache": money(cached),
        "saved_by_replay": money(now.replayed_cost),
        "cost": money(now.cost),
        "change": change(now.cost, before.cost),
        "forecast": money(forecast),
        "per_run": money(_per_run(now)) if now.runs else NOT_APPLICABLE,
        "runs": count_text(now.runs),
        "unrecorded": money(now.unrecorded_cost) if now.unrecorded_runs else "",
        "unrecorded_runs": count_text(now.unrecorded_runs),
        "unpriced": compact(now.unpriced_tokens),
        "unpriced_calls": count_text(now.unpriced_calls),
        "unpriced_hint": missing_library() if now.unpriced_calls else "",
    }


def lines(
    now: Sequence[UsageGroupSchema],
    before: Sequence[UsageGroupSchema],
    total: UsageSchema,
    medians: Mapping[str | None, Decimal],
    query_of: Callable[[str], str],
) -> list[Line]:
    """Return the table of groups, with the change to the period before. `query_of` returns the query of a group."""
    earlier = {group.key: group for group in before}
    return [
        line(
            group,
            group.key if group.key is not None else _("(none)"),
            earlier.get(group.key),
            total.cost,
            medians.get(group.key),
            query_of(group.key) if group.key else "",
        )
        for group in now[:MAX_LINES]
    ]


def line(
    sums: UsageSchema,
    label: str,
    before: UsageSchema | None,
    total: Decimal | None,
    median: Decimal | None,
    query: str = "",
) -> Line:
    """Return the line of one group."""
    return Line(
        label=label or _("(empty)"),
        share=round(100 * sums.cost / total) if sums.cost is not None and total else None,
        runs=count_text(sums.runs),
        tokens=compact(sums.total_tokens),
        per_run=money(_per_run(sums)),
        median=money(median) if sums.runs else NOT_APPLICABLE,
        cost=money(sums.cost),
        change=change(sums.cost, before.cost if before else Decimal(0)),
        is_unpriced=bool(sums.unpriced_calls),
        query=query,
    )


def change(now: Decimal | None, before: Decimal | None) -> str:
    """Return the change of a cost as text, or "" if it cannot be calculated."""
    if now is None or before is None:
        return ""
    if not before:
        return _("new") if now else ""
    share = float(now / before) - 1
    return f"{'+' if share >= 0 else MINUS} {percent(abs(share))}"


def models(activities: ActivityQuerySet, period: Period) -> list[ModelLine]:
    """Return the table of models, the most expensive first; one query."""
    calls = calls_of(activities, period).order_by().values("provider", group=F("name")).annotate(**SUMS)
    rows = calls.order_by(F("sum_cost").desc(nulls_last=True), F("sum_input_tokens").desc(), "group")[:MAX_LINES]
    return [_model_line({**row}, period) for row in rows]


def _model_line(row: dict[str, Any], period: Period) -> ModelLine:
    provider = str(row.pop("provider"))
    sums = group_of(row)
    rates = rates_of(str(sums.key), provider, period.end - timedelta(seconds=1))
    return ModelLine(
        name=str(sums.key),
        provider=provider,
        input=compact(sums.input_tokens),
        cached=percent(sums.cached_tokens / sums.input_tokens) if sums.cached_tokens else NOT_APPLICABLE,
        output=compact(sums.output_tokens),
        price="" if rates is None else _prices(rates),
        cost=money(sums.cost),
        saved=_saved(rates, sums.cached_tokens),
        is_unpriced=bool(sums.unpriced_calls),
    )


def _prices(rates: Rates) -> str:
    text = f"{dollars(rates.input)} / {dollars(rates.output)}"
    return _("from %(price)s") % {"price": text} if rates.is_tiered else text


def _saved(rates: Rates | None, cached_tokens: int) -> Decimal:
    return Decimal(0) if rates is None else (rates.input - rates.cached) * cached_tokens / MILLION


def chart(activities: ActivityQuerySet, period: Period, group_by: str, groups: Sequence[UsageGroupSchema]) -> Chart:
    """Return the cost per day, by the groups with the highest costs and all others together; two queries."""
    names = [group.key for group in groups if group.key is not None and group.cost][:MAX_SERIES]
    by_day, _has_more = usage_groups(activities, period, "day")
    totals = {str(group.key): group.cost or Decimal(0) for group in by_day}
    parts: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    if names:
        calls = calls_of(activities, period).order_by().annotate(series=group_expression(group_by, period))
        day = TruncDay("started_at", tzinfo=period.zone)
        for row in calls.filter(series__in=names).values("series", day=day).annotate(spent=Sum("cost")):
            parts[row["day"].date().isoformat(), row["series"]] = row["spent"] or Decimal(0)
    top = _ceiling(max(totals.values(), default=Decimal(0)))
    bars = []
    for number, each in enumerate(period.days):
        key = each.isoformat()
        known = [parts[key, name] for name in names]
        rest = max(totals.get(key, Decimal(0)) - sum(known), Decimal(0))
        bars += _stack(number, len(period.days), [*known, rest], len(names), top)
    legend = [(number, name) for number, name in enumerate(names, 1)]
    if len(groups) > len(names):
        legend.append((4, _("other")))
    return Chart(
        bars=bars,
        legend=legend[::-1],
        scale=[money(top), money(top / 2), money(Decimal(0))],
        days=[date_format(each, _("j M")) for each in _marks(period.days)],
        table=[(date_format(each, _("j M")), money(totals.get(each.isoformat(), Decimal(0)))) for each in period.days],
    )


def _stack(number: int, days: int, values: Sequence[Decimal], named: int, top: Decimal) -> list[Bar]:
    """Return the parts of the bar of one day; the last value is that of all other groups."""
    width, bottom, found = 100 / days, 100.0, []
    for index, value in enumerate(values):
        height = float(100 * value / top)
        if height <= 0:
            continue
        series = index + 1 if index < named else 4
        shown = max(height - GAP, 0.3)
        x = number * width + width * (1 - BAR) / 2
        found.append(Bar(series, f"{x:.2f}", f"{bottom - shown:.2f}", f"{width * BAR:.2f}", f"{shown:.2f}"))
        bottom -= height
    return found


def _ceiling(value: Decimal) -> Decimal:
    """Return an even number that is not below `value`, for the top of the scale."""
    if value <= 0:
        return Decimal(1)
    power = Decimal(10) ** value.adjusted()
    return next(power * factor for factor in (1, 2, 4, 5, 10) if power * factor >= value)


def _marks(days: Sequence[date]) -> list[date]:
    """Return at most five days for the axis, among them the first and the last."""
    if len(days) <= 5:
        return list(days)
    return [days[round(number * (len(days) - 1) / 4)] for number in range(5)]


def _forecast(activities: ActivityQuerySet, today: date) -> Decimal | None:
    """Return the cost of the current month if the last days continue; one query."""
    month, recent = today.replace(day=1), today - timedelta(days=RATE_DAYS - 1)
    found, _has_more = usage_groups(activities, Period.of(min(month, recent), today), "day")
    if found and all(group.cost is None for group in found):
        return None
    costs = {date.fromisoformat(str(group.key)): group.cost or Decimal(0) for group in found}
    spent = sum((cost for day, cost in costs.items() if day >= month), Decimal(0))
    rate = sum((cost for day, cost in costs.items() if day >= recent), Decimal(0)) / RATE_DAYS
    return spent + rate * (calendar.monthrange(today.year, today.month)[1] - today.day)


def _per_run(sums: UsageSchema) -> Decimal | None:
    return None if sums.cost is None else sums.cost / max(sums.runs, 1)


def page_data(
    activities: ActivityQuerySet, period: Period, group_by: str, query_of: Callable[[str], str]
) -> dict[str, Any]:
    """Return all contents of the page; 16 queries. `query_of` returns the query of the page of one group."""
    groups, has_more = usage_groups(activities, period, group_by)
    earlier, _has_more = usage_groups(activities, period.previous, group_by)
    totals, before = report_totals(activities, period), usage_totals(activities, period.previous)
    has_more = has_more or len(groups) > MAX_LINES
    medians = group_medians(activities, period, group_by, groups[:MAX_LINES], has_more)
    found = models(activities, period)
    cached = sum((model.saved for model in found), Decimal(0))
    return {
        "totals": totals,
        "tiles": tiles(activities, period, totals, before, cached),
        "chart": chart(activities, period, group_by, groups),
        "lines": lines(groups, earlier, totals, medians, query_of),
        "total_line": line(totals, _("Total"), before, None, totals.median_cost),
        "has_more": has_more,
        "models": found,
        "expensive": expensive_lines(activities, period),
    }
