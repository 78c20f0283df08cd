"""The list of the most expensive runs, with what has made them expensive."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import ngettext

from ..costs.period import Period
from ..costs.runs import ExpensiveRunSchema, expensive_runs, reasons_of
from ..costs.usage import calls_of
from ..models import Activity, ActivityQuerySet
from .formatting import compact, count_text, money
from .metadata import metadata_columns

MAX_RUNS = 5


@dataclass(frozen=True)
class ExpensiveLine:
    """A line of the list."""

    activity: Activity
    values: list[str]
    """Of the configured columns of metadata."""
    cost: str
    facts: str
    reasons: str


def expensive_lines(activities: ActivityQuerySet, period: Period) -> list[ExpensiveLine]:
    """Return the lines of the runs with the highest costs in a period; four queries."""
    columns = metadata_columns()
    found = expensive_runs(activities, calls_of(activities, period), MAX_RUNS)
    return [
        ExpensiveLine(
            activity=activity,
            values=[text for column in columns if (text := column.text(activity))],
            cost=money(run.cost),
            facts=" · ".join(_facts(run)),
            reasons="; ".join(reasons_of(run)),
        )
        for activity, run in found
    ]


def _facts(run: ExpensiveRunSchema) -> list[str]:
    calls = ngettext("%(number)s model call", "%(number)s model calls", run.calls)
    total = run.input_tokens + run.output_tokens
    tokens = ngettext("%(number)s token", "%(number)s tokens", total)
    facts = [calls % {"number": count_text(run.calls)}, tokens % {"number": compact(total)}]
    return [*facts, *filter(None, run.models)]
