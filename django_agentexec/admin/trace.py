"""The trace of an activity as plain values for its template: rows of a tree, each with its bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from ..calls.content import content_of
from ..calls.queries import CONTENT, Node, Trace, select, trace_of
from ..models import Activity, AgentCall, CallKind
from ..public_errors import neutral_error
from .formatting import compact, duration, money, pretty_json, span
from .values import NOTHING
from .waterfall import Axis, Bar

MAX_TEXT = 20_000  # characters of a value on the page; the JSON has all
FILTERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "models": ((CallKind.MODEL,), ()),
    "tools": ((CallKind.TOOL,), ()),
    "failed": ((), ("failed", "in_doubt", "rejected")),
}
"""The kinds and states that each filter shows."""


@dataclass(frozen=True)
class Mark:
    """A short note beside the name of a call."""

    text: str
    status: str = ""


@dataclass
class Row:
    """A call with its children."""

    call: AgentCall
    kind: str
    name: str
    note: str
    marks: list[Mark]
    bar: Bar
    bar_kind: str
    took: str
    tokens: str
    cost: str
    has_content: bool
    """Whether its arguments and output can be loaded."""
    is_open: bool
    state: str
    children: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class TraceCard:
    """The card of the trace."""

    rows: Sequence[Row]
    earlier: Sequence[Row]
    """Calls that were set aside."""
    filters: Sequence[tuple[str, str, bool]]
    """Value, label, and whether it is chosen."""
    waits: str
    """The waits that the axis shortens."""
    count: int
    has_more: bool
    length: str


def trace_card(activity: Activity, chosen: str = "", *, is_redacted: bool = False) -> TraceCard:
    """Return the card; two queries."""
    trace, now = trace_of(activity), timezone.now()
    axis = Axis(_busy(trace, now))
    kinds, states = FILTERS.get(chosen, ((), ()))
    roots = select(trace.roots, kinds, states) if chosen in FILTERS else trace.roots
    earlier = [node for nodes in trace.earlier for node in nodes]
    labels = {"": _("All"), "models": _("Models"), "tools": _("Tools"), "failed": _("Failed")}
    return TraceCard(
        rows=[_row(node, axis, now, is_redacted=is_redacted) for node in roots],
        earlier=[_row(node, axis, now, is_redacted=is_redacted) for node in earlier] if chosen not in FILTERS else [],
        filters=[(value, label, value == (chosen if chosen in FILTERS else "")) for value, label in labels.items()],
        waits=", ".join(axis.waits),
        count=trace.count,
        has_more=trace.has_more,
        length=duration(span(axis.origin, max((end for _start, end in _busy(trace, now)), default=None))),
    )


def call_content(call: AgentCall, *, monitors: bool) -> dict[str, Any]:
    """Return the template's values for the content of a call."""
    content = content_of(call, monitors=monitors, fields=CONTENT)
    titles = {
        "arguments": _("Input") if call.kind == CallKind.AGENT else _("Arguments"),
        "output": _("Answer") if call.kind == CallKind.MODEL else _("Output"),
        "request": _("Request"),
    }
    texts = {name: _text(getattr(content, name)) for name in CONTENT}
    return {
        "call": call,
        "parts": [(titles[name], texts[name][:MAX_TEXT]) for name in ("arguments", "output") if texts[name]],
        "request": texts["request"][:MAX_TEXT],
        "answer": _answer(content.output) if call.kind == CallKind.MODEL else "",
        "is_cut": any(len(text) > MAX_TEXT for text in texts.values()),
        "error": content.error if monitors else content.public_error,
        "hidden": ", ".join(titles[name] for name in content.hidden),
        "has_parts": any(texts.values()) or bool(content.error),
    }


def _busy(trace: Trace, now: datetime) -> list[tuple[datetime, datetime]]:
    """Return the spans of calls of models and tools; of a trace without any, those of its runs.

    A call with runs inside that have continued under another claim contains a wait, and does not count as busy.
    """
    spans = [
        (node.call.started_at, _end(node, now))
        for node in trace
        if node.call.kind != CallKind.AGENT
        and node.state != "waiting"
        and all(inside.call.fence == node.call.fence for inside in node)
    ]
    return spans or [(node.call.started_at, _end(node, now)) for node in trace]


def _end(node: Node, now: datetime) -> datetime:
    if node.call.finished_at:
        return max(node.call.finished_at, node.call.started_at)
    if node.state == "interrupted":
        return max((_end(child, now) for child in node.children), default=node.call.started_at)
    return max(now, node.call.started_at)


def _row(node: Node, axis: Axis, now: datetime, *, is_redacted: bool) -> Row:
    call, end = node.call, _end(node, now)
    kind = CallKind(call.kind)
    labels = {
        CallKind.AGENT: _("Agent"),
        CallKind.MODEL: _("Model"),
        CallKind.TOOL: _("Tool"),
        CallKind.ONCE: _("Once"),
    }
    error = neutral_error(node.error) if node.error and is_redacted else node.error
    return Row(
        call=call,
        kind=labels[kind],
        name=call.agent if kind == CallKind.AGENT else call.name or call.call_id,
        note=_note(node, error),
        marks=list(_marks(node)),
        bar=axis.bar(call.started_at, end),
        bar_kind=_bar_kind(node),
        took="" if node.state == "interrupted" or has_no_duration(call) else duration(span(call.started_at, end)),
        tokens=compact(node.tokens) if node.tokens else "",
        cost="" if node.cost is None else money(node.cost),
        has_content=node.approval is None,
        is_open=bool(node.children) and not call.set_aside,
        state=node.state,
        children=[_row(child, axis, now, is_redacted=is_redacted) for child in node.children],
    )


def has_no_duration(call: AgentCall) -> bool:
    """Return whether a call has ended, and its duration is unknown."""
    return call.finished_at is not None and call.duration is None


def _marks(node: Node) -> Iterator[Mark]:
    texts = {
        "failed": (_("Failed"), "error"),
        "in_doubt": (_("Outcome unknown"), "attention"),
        "rejected": (_("Rejected"), "error"),
        "running": (_("Running"), "running"),
        "waiting": (_("Waiting"), "attention" if node.approval else "suspended"),
        "interrupted": (_("Interrupted"), "canceled"),
    }
    if node.state in texts:
        yield Mark(*texts[node.state])
    if node.is_replayed and node.call.kind != CallKind.AGENT:
        yield Mark(_("Replayed"))
    if node.call.is_cached:
        yield Mark(_("Cached") if node.call.kind == CallKind.MODEL else _("First result"))
    if node.call.has_changed:
        yield Mark(_("Request changed"), "attention")


def _note(node: Node, error: str) -> str:
    if node.approval is not None:
        return _("Waits for a decision.")
    return error


def _bar_kind(node: Node) -> str:
    if node.state in ("failed", "rejected", "in_doubt"):
        return "error"
    if node.state == "waiting":
        return "wait"
    if node.is_replayed and node.call.kind != CallKind.AGENT:
        return "old"
    return str(node.call.kind)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else pretty_json(value)


def _answer(output: Any) -> str:
    """Return the text of a model's answer, and the tools that it calls."""
    items: Iterable[Any] = output.get("output") or () if isinstance(output, dict) else ()
    texts, calls = list[str](), list[str]()
    for item in items:
        if not isinstance(item, dict):
            continue
        parts = item.get("content")
        if item.get("type", "message") == "message" and isinstance(parts, list):
            texts += [str(part.get("text") or part.get("refusal") or "") for part in parts if isinstance(part, dict)]
        elif item.get("name"):
            calls.append(str(item["name"]))
    if calls:
        texts.append(_("Calls: %(tools)s") % {"tools": ", ".join(calls)})
    return "\n".join(filter(None, texts))[:MAX_TEXT] or NOTHING
