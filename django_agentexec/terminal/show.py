"""`agents show`: all about one activity."""

from __future__ import annotations

import argparse
from typing import Any

from .. import activity
from ..models import Activity
from ..schemas import ActivityDetailSchema
from . import times
from .command import OK, Output
from .selection import find
from .text import age, clean, to_json

HELP = "show one activity: its state, log, error, context and result"
CHILDREN_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the id."""
    parser.add_argument("id", help="of the activity, or the beginning of one")
    parser.add_argument("--json", action="store_true", help="the shape of REST's detail")


def run(out: Output, options: dict[str, Any]) -> int:
    """Write the activity."""
    detail = activity.detail(find(options["id"]))
    if options["json"]:
        out.json(detail)
        return OK
    out.status(detail.status, f"{detail.agent_type} {detail.agent_id}")
    facts = {name: value for name, value in _facts(detail) if value not in ("", None)}
    widest = max(map(len, facts))
    out.write("\n".join(f"  {name:<{widest}}  {value}" for name, value in facts.items()))
    _sections(out, detail)
    return OK


def _facts(detail: ActivityDetailSchema) -> list[tuple[str, object]]:
    took = detail.finished_at - detail.started_at if detail.finished_at and detail.started_at else None
    tokens = detail.usage.get("total_tokens")
    return [
        ("status", f"{detail.status}, {detail.percentage} %"),
        ("queue", detail.queue or "none: driven by its creator"),
        ("lock key", detail.lock_key),
        ("attempt", f"{detail.attempt}, {detail.retries} of {detail.max_retries} retries used"),
        ("crashes", detail.crashes or ""),
        ("worker", detail.worker),
        ("created", times.date_and_time(detail.created_at)),
        ("due", times.date_and_time(detail.run_after)),
        ("started", times.date_and_time(detail.started_at)),
        ("finished", times.date_and_time(detail.finished_at)),
        ("time zone", times.zone()),
        ("took", age(took.total_seconds()) if took else ""),
        ("tokens", f"{tokens:,}" if tokens else ""),
        ("metadata", ", ".join(f"{key}={value}" for key, value in detail.metadata.items())),
        ("enqueued by", detail.enqueued_by or ""),
        ("parent", detail.parent_id),
        ("children", _children(detail)),
    ]


def _children(detail: ActivityDetailSchema) -> str:
    rows = Activity.objects.filter(parent_id=detail.agent_id).order_by("agent_id").only("agent_id", "status")
    found = [f"{child.agent_id} ({child.status})" for child in rows[: CHILDREN_SHOWN + 1]]
    if len(found) > CHILDREN_SHOWN:
        found[-1] = "..."
    return ", ".join(found)


def _sections(out: Output, detail: ActivityDetailSchema) -> None:
    out.write("\nlog")
    for line in detail.logs:
        by = f"  (by {line.actor})" if line.actor else ""
        clock = times.clock(line.created_at)
        out.status(line.status, f"  {clock}  {line.percentage:>3} %  {_indented(line.message)}{by}")
    for title, text in (("error", detail.error), ("traceback", detail.traceback)):
        if text:
            out.write(f"\n{title}\n  {_indented(text)}")
    for title, value in (("context", detail.context), ("result", detail.result)):
        if value not in (None, {}):
            out.write(f"\n{title}\n  {_indented(to_json(value))}")


def _indented(text: str) -> str:
    return clean(text).strip().replace("\n", "\n  ")
