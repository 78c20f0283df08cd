"""The trace of an activity in the terminal: one line per call, indented by the tree."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..calls.queries import Node, Trace
from ..models import CallKind
from ..money import dollars
from .command import Output
from .text import clean
from .times import clock, time_span

INDENT = "· "
STATES = {
    "running": gettext_lazy("running"),
    "waiting": gettext_lazy("waiting"),
    "interrupted": gettext_lazy("interrupted"),
    "done": gettext_lazy("done"),
    "failed": gettext_lazy("failed"),
    "in_doubt": gettext_lazy("in doubt"),
    "rejected": gettext_lazy("rejected"),
}


def write_calls(out: Output, trace: Trace) -> None:
    """Write the calls as a table."""
    rows: list[list[object]] = [cells for root in trace.roots for cells in _rows(root, 0)]
    out.write("\n" + _("calls"))
    # The state is the last column, since it contains errors of any length.
    header = [_("call"), _("attempt"), _("started"), _("took"), _("tokens"), _("cost"), _("state")]
    if rows:
        out.table(header, rows, right=(1, 3, 4, 5))
    else:
        out.write("  " + _("none"))
    if set_aside := sum(1 for nodes in trace.earlier for root in nodes for _node in root):
        text = ngettext(
            "%(count)s call was set aside by fresh retries.",
            "%(count)s calls were set aside by fresh retries.",
            set_aside,
        )
        out.write(text % {"count": set_aside})
    if trace.has_more:
        out.write(_("Only the first calls are shown; the REST API has all."))


def _rows(node: Node, depth: int) -> Iterator[list[object]]:
    call = node.call
    kind = {CallKind.AGENT: _("agent"), CallKind.MODEL: _("model"), CallKind.TOOL: _("tool")}.get(
        CallKind(call.kind), _("once")
    )
    name = call.agent if call.kind == CallKind.AGENT else call.name or call.call_id
    state = _("replayed") if node.is_replayed and call.kind != CallKind.AGENT else str(STATES[node.state])
    if call.is_cached:
        state = f"{state}, {_('cached')}"
    yield [
        f"{INDENT * depth}{kind} {clean(name)}",
        call.attempt,
        clock(call.started_at),
        _took(call.duration),
        f"{node.tokens:,}" if node.tokens else "",
        "" if node.cost is None else dollars(node.cost),
        f"{state}: {clean(node.error)}" if node.error else state,
    ]
    for child in node.children:
        yield from _rows(child, depth + 1)


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f}s" if seconds < 60 else time_span(seconds)
