"""Verification of an agent's claims against its document and its tool calls, since models invent facts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from agents import RunItem, Tool, ToolCallItem

from .library import Document
from .schemas import CheckedBrief, CheckedReview, CompanyBrief, ContractReview, Figure
from .tools import READING_TOOLS, read_page

_NUMBER = re.compile(r"[^\d.]")
_TOLERANCE = 0.15  # of a change that the model has rounded, in percent or points


def checked_brief(brief: CompanyBrief, document: Document, items: Sequence[RunItem]) -> CheckedBrief:
    """Return a brief with the claims that the document does not contain; pages are counted from the tool calls."""
    claims = brief.model_dump() | {"pages_read": len(_pages_read(items))}
    return CheckedBrief(
        **claims,
        unverified_quotes=_unverified(document, [risk.quote for risk in brief.risks]),
        unverified_figures=[figure.name for figure in brief.figures if not _is_printed(figure, document)],
        notes=unused_tools(items, READING_TOOLS),
    )


def checked_review(review: ContractReview, document: Document, items: Sequence[RunItem]) -> CheckedReview:
    """Return a review with the quotes that the contract does not contain."""
    quotes = [
        *(date.quote for date in review.dates),
        *(amount.quote for amount in review.amounts),
        *(clause.quote for clause in review.risky_clauses),
    ]
    return CheckedReview(
        **review.model_dump(),
        unverified_quotes=_unverified(document, quotes),
        notes=unused_tools(items, READING_TOOLS),
    )


def unused_tools(items: Iterable[RunItem], tools: Sequence[Tool]) -> list[str]:
    """Return a sentence if a run has called none of `tools`, so that its answer has no basis in them."""
    names = {tool.name for tool in tools}
    if any(name in names for name, _ in _invoker(items)):
        return []
    return [f"The model used none of its tools ({', '.join(sorted(names))}): what it says is not from the documents."]


def _unverified(document: Document, quotes: Iterable[str]) -> list[str]:
    return [quote for quote in dict.fromkeys(quotes) if not document.contains(quote)]


def _is_printed(figure: Figure, document: Document) -> bool:
    if not figure.value.strip() or not all(document.prints(text) for text in (figure.value, figure.previous) if text):
        return False
    return not figure.change or document.prints(figure.change.lstrip("+-")) or _is_computed(figure)


def _is_computed(figure: Figure) -> bool:
    """Return whether the change follows from the two values, in percent or in points."""
    value, previous, change = (_number(text) for text in (figure.value, figure.previous, figure.change))
    if value is None or previous is None or change is None:
        return False
    sign = -1 if figure.change.startswith("-") else 1
    possible = [value - previous, *([100 * (value / previous - 1)] if previous else [])]
    return any(abs(sign * change - one) <= _TOLERANCE for one in possible)


def _number(text: str) -> float | None:
    try:
        return float(_NUMBER.sub("", text))
    except ValueError:
        return None


def _pages_read(items: Iterable[RunItem]) -> set[tuple[str, str]]:
    found = set()
    for name, arguments in _invoker(items):
        if name == read_page.name:
            found.add((str(arguments.get("document")), str(arguments.get("page"))))
    return found


def _invoker(items: Iterable[RunItem]) -> list[tuple[str, dict[str, object]]]:
    """Return the names and arguments of a run's tool calls; arguments that are not a JSON object are skipped."""
    calls = []
    for item in items:
        if isinstance(item, ToolCallItem):
            name = getattr(item.raw_item, "name", "")
            try:
                arguments = json.loads(getattr(item.raw_item, "arguments", "") or "{}")
            except ValueError:
                arguments = {}
            calls.append((str(name), arguments if isinstance(arguments, dict) else {}))
    return calls
