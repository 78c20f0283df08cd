"""Usage as CSV."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

from ..money import plain
from .usage import UsageReportSchema

COLUMNS = (
    *("calls", "runs", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "total_tokens"),
    *("cost", "unpriced_calls", "unpriced_tokens", "median_cost"),
)
_MONEY = ("cost", "median_cost")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def usage_csv(report: UsageReportSchema) -> str:
    """Return the groups of a report as CSV, and the totals in the last line. An unknown cost is empty."""
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow([report.group_by, *COLUMNS])
    for group in report.groups:
        writer.writerow([_cell(group.key or ""), *_numbers(group)])
    writer.writerow(["total", *_numbers(report.totals)])
    return text.getvalue()


def _numbers(sums: Any) -> list[object]:
    values = {name: getattr(sums, name) for name in COLUMNS}
    return [plain(value) if name in _MONEY and value is not None else value for name, value in values.items()]


def _cell(text: str) -> str:
    """Return a text that no spreadsheet evaluates as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
