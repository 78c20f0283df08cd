"""What the page of one activity shows, as plain values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from django.utils import timezone

from ..models import Activity, ActivityLog, ActivityQuerySet
from ..redaction import redact_line
from .formatting import duration, pretty_json, span, total_tokens

MAX_LINES = 300  # of the log on one page
MAX_CHILDREN = 20
MAX_JSON = 20_000  # characters of a value on the page; the whole one has an address of its own

VALUES = ("context", "result", "metadata")
"""The columns that are shown as JSON."""


@dataclass
class Attempt:
    """One attempt and its part of the log; number 0 is the time before the first one."""

    number: int
    lines: list[ActivityLog] = field(default_factory=list)

    @property
    def seconds(self) -> str:
        """How long it took, or has taken so far by its log."""
        return duration(span(self.lines[0].created_at, self.lines[-1].created_at))

    @property
    def status(self) -> str:
        """How it ended, or where it stands."""
        return self.lines[-1].status


@dataclass(frozen=True)
class Timeline:
    """The log from the oldest to the newest line shown, by attempts."""

    attempts: list[Attempt]
    last_id: int
    earlier: int | None
    """The id before which there are earlier lines, or None if these are all."""


@dataclass(frozen=True)
class JsonValue:
    """A JSON column, cut if it is long."""

    name: str
    text: str
    is_cut: bool
    size: int
    """Characters of the whole."""


def timeline(activity: Activity, before: int | None = None, *, is_redacted: bool = False) -> Timeline:
    """Return the latest lines of the log (those before the id `before`); one query."""
    lines = activity.logs.order_by("-id")
    if before is not None:
        lines = lines.filter(id__lt=before)
    found = list(lines[: MAX_LINES + 1])
    shown = found[:MAX_LINES][::-1]
    if is_redacted:
        for line in shown:
            redact_line(line)
    return Timeline(
        attempts=by_attempt(shown),
        last_id=shown[-1].id if shown else 0,
        earlier=shown[0].id if len(found) > MAX_LINES else None,
    )


def by_attempt(lines: Sequence[ActivityLog]) -> list[Attempt]:
    """Group neighbouring lines of the same attempt."""
    return [Attempt(number, list(group)) for number, group in groupby(lines, lambda line: line.attempt)]


def json_value(activity: Activity, name: str) -> JsonValue | None:
    """Return a JSON column as text, or None if it holds nothing."""
    value = getattr(activity, name)
    if value is None or value == {}:
        return None
    text = pretty_json(value)
    return JsonValue(name, text[:MAX_JSON], len(text) > MAX_JSON, len(text))


def usage(activity: Activity) -> list[tuple[str, str]]:
    """Return the names and numbers of the usage, the tokens in all last."""
    known = {name: count for name, count in (activity.usage or {}).items() if name != "total_tokens"}
    total = total_tokens(activity.usage)
    lines = [(name.replace("_", " ").capitalize(), f"{count:,}") for name, count in known.items()]
    return [*lines, *([("Total tokens", f"{total:,}")] if total else [])]


def children(visible: ActivityQuerySet, activity: Activity) -> tuple[list[Activity], bool]:
    """Return the latest children that are visible, and whether there are more; one query."""
    rows = visible.filter(parent_id=activity.pk).without_payloads().order_by("-agent_id")
    found = list(rows[: MAX_CHILDREN + 1])
    return found[:MAX_CHILDREN], len(found) > MAX_CHILDREN


def facts(activity: Activity) -> dict[str, Any]:
    """Return the times and spans that the page tells."""
    now = timezone.now()
    started, ended = activity.started_at, activity.finished_at
    return {
        "waited": duration(span(activity.created_at, started)) if started and activity.attempt <= 1 else "",
        "took": duration(span(started, ended or now)),
        "is_due_later": bool(activity.run_after and activity.is_active and activity.run_after > now),
        "times": [(name, moment) for name, moment in _times(activity) if moment],
    }


def _times(activity: Activity) -> list[tuple[str, datetime | None]]:
    return [
        ("Created", activity.created_at),
        ("Started", activity.started_at),
        ("Finished", activity.finished_at),
    ]
