"""`agentexec show`: everything about one activity."""

from __future__ import annotations

import argparse
import math
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import activity
from ..calls.queries import MAX_CALLS, CallListSchema, page_of_calls, trace_of
from ..models import Activity, AgentCall
from ..money import dollars
from ..schemas import ActivityDetailSchema
from . import times
from .arguments import add_id
from .calls import write_calls
from .command import OK, Output, Subcommand
from .selection import find
from .text import clean, to_json

MAX_CHILDREN = 20  # ids in the output


class Show(Subcommand):
    """The view of one activity."""

    help = gettext_lazy("show one activity: its status, log, error, context and result")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the id."""
        add_id(parser)
        parser.add_argument("--json", action="store_true", help=_("print JSON in the shape of the REST detail"))
        calls_help = _(
            "print the calls of models and tools, too; with --json only these, in the shape of the REST list"
        )
        parser.add_argument("--calls", action="store_true", help=calls_help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the activity."""
        if options["calls"] and options["json"]:
            out.json(_calls(find(options["id"])))
            return OK
        detail = activity.detail(find(options["id"]))
        if options["json"]:
            out.json(detail)
            return OK
        out.status(detail.status, f"{detail.agent_type} {detail.agent_id}")
        facts = {name: value for name, value in _facts(detail) if value not in ("", None)}
        widest = max(map(len, facts))
        out.write("\n".join(f"  {name:<{widest}}  {value}" for name, value in facts.items()))
        _write_sections(out, detail)
        if options["calls"]:
            write_calls(out, trace_of(Activity.objects.get(pk=detail.agent_id)))
        return OK


def _calls(agent_id: UUID) -> CallListSchema:
    found = Activity.objects.only("agent_id", "fence").get(pk=agent_id)
    calls = AgentCall.objects.of(agent_id)
    return page_of_calls(found, calls, MAX_CALLS, monitors=True, with_content=True, max_bytes=math.inf)


def _facts(detail: ActivityDetailSchema) -> list[tuple[str, object]]:
    took = detail.finished_at - detail.started_at if detail.finished_at and detail.started_at else None
    tokens = detail.usage.get("total_tokens")
    retries = {"attempt": detail.attempt, "used": detail.retries, "maximum": detail.max_retries}
    attempt = ngettext(
        "%(attempt)s, %(used)s of %(maximum)s retry used",
        "%(attempt)s, %(used)s of %(maximum)s retries used",
        detail.max_retries,
    )
    return [
        (_("status"), f"{detail.status}, {detail.percentage} %"),
        (_("waiting for"), detail.waiting_for),
        (_("paused"), detail.paused),
        (_("queue"), detail.queue or _("none: its creator updates it")),
        (_("lock key"), detail.lock_key),
        (_("attempt"), attempt % retries),
        (_("crashes"), detail.crashes or ""),
        (_("worker"), detail.worker),
        (_("created"), times.date_and_time(detail.created_at)),
        (_("due"), times.date_and_time(detail.run_after)),
        (_("started"), times.date_and_time(detail.started_at)),
        (_("finished"), times.date_and_time(detail.finished_at)),
        (_("time zone"), times.zone()),
        (_("took"), times.time_span(took.total_seconds()) if took else ""),
        (_("tokens"), f"{tokens:,}" if tokens else ""),
        (_("cost"), _cost(detail)),
        (_("metadata"), ", ".join(f"{key}={value}" for key, value in detail.metadata.items())),
        (_("enqueued by"), detail.enqueued_by or ""),
        (_("parent"), detail.parent_id),
        (_("children"), _children(detail)),
    ]


def _cost(detail: ActivityDetailSchema) -> str:
    """Return the cost as text: without calls of models nothing, and never 0 if it is unknown."""
    if detail.cost is not None:
        return dollars(detail.cost)
    return _("unpriced") if detail.usage.get("total_tokens") else ""


def _children(detail: ActivityDetailSchema) -> str:
    rows = Activity.objects.filter(parent_id=detail.agent_id).order_by("agent_id").only("agent_id", "status")
    found = [f"{child.agent_id} ({child.status})" for child in rows[: MAX_CHILDREN + 1]]
    if len(found) > MAX_CHILDREN:
        found[-1] = "..."
    return ", ".join(found)


def _write_sections(out: Output, detail: ActivityDetailSchema) -> None:
    out.write("\n" + _("log"))
    for line in detail.logs:
        actor = "  " + _("(by %(actor)s)") % {"actor": line.actor} if line.actor else ""
        clock = times.clock(line.created_at)
        out.status(line.status, f"  {clock}  {line.percentage:>3} %  {_indented(line.message)}{actor}")
    for title, text in ((_("error"), detail.error), (_("traceback"), detail.traceback)):
        if text:
            out.write(f"\n{title}\n  {_indented(text)}")
    for title, value in ((_("context"), detail.context), (_("result"), detail.result)):
        if value not in (None, {}):
            out.write(f"\n{title}\n  {_indented(to_json(value))}")


def _indented(text: str) -> str:
    return clean(text).strip().replace("\n", "\n  ")
