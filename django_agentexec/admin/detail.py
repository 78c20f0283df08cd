"""The contents of the page of one activity, as plain values for its template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from ..costs.usage import models_of, tree_calls
from ..models import Activity, ActivityLog, ActivityQuerySet, StepRun
from ..pipelines.diagram import StepView
from ..redaction import redact_line
from .formatting import compact, count_text, duration, moment, money, pretty_json, span, total_tokens
from .values import JsonPrefix, Shown, shown

MAX_LINES = 300  # of the log on one page
MAX_JSON = 20_000  # characters of a value on the page; the whole value has its own address

VALUES = ("context", "result", "metadata")
"""The columns that are shown as JSON."""


@dataclass
class Attempt:
    """One attempt and its part of the log; number 0 is the time before the first attempt."""

    number: int
    lines: list[ActivityLog] = field(default_factory=list)

    @property
    def seconds(self) -> str:
        """How long it took, or has taken so far by its log."""
        return duration(span(self.lines[0].created_at, self.lines[-1].created_at))

    @property
    def status(self) -> str:
        """The status after its last line."""
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
    """A JSON column: in a form for people, and as text that is cut if it is long."""

    name: str
    title: str
    shown: Shown
    text: str
    is_cut: bool
    size: int
    """Characters of the whole."""


@dataclass(frozen=True)
class Step:
    """A step of a pipeline, with the beginning of its input and output."""

    view: StepView
    number: int
    label: str
    """The state in words."""
    tone: str
    """The status whose colour and shape the state has."""
    took: str
    input: str
    output: str
    is_cut: bool

    @property
    def title(self) -> str:
        """The step's title."""
        return self.view.title

    @property
    def state(self) -> str:
        """The step's state."""
        return self.view.state


def timeline(activity: Activity, before: int | None = None, *, is_redacted: bool = False) -> Timeline:
    """Return the latest lines of the log (those before the id `before`); one query."""
    lines = activity.logs.order_by("-id")
    if before is not None:
        lines = lines.filter(id__lt=before)
    found = list(lines[: MAX_LINES + 1])
    shown_lines = found[:MAX_LINES][::-1]
    for line, following in pairwise(shown_lines):
        line.lasted = duration(span(line.created_at, following.created_at))  # type: ignore[attr-defined]  # for the template
    if is_redacted:
        for line in shown_lines:
            redact_line(line)
    return Timeline(
        attempts=by_attempt(shown_lines),
        last_id=shown_lines[-1].id if shown_lines else 0,
        earlier=shown_lines[0].id if len(found) > MAX_LINES else None,
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
    titles = {"context": _("Context"), "result": _("Result"), "metadata": _("Metadata")}
    return JsonValue(
        name,
        titles[name],
        shown(value, MAX_JSON, with_prose=name == "result"),
        text[:MAX_JSON],
        len(text) > MAX_JSON,
        len(text),
    )


@dataclass(frozen=True)
class Spend:
    """The cost of an activity with all activities below it, by model."""

    total: str
    has_unpriced: bool
    has_children: bool
    models: list[tuple[str, str, str]]
    """Name, tokens and cost."""


def spend(activity: Activity, others: ActivityQuerySet, *, has_children: bool) -> Spend | None:
    """Return the cost of an activity and of the visible activities below it; None without calls. Two queries."""
    models = models_of(tree_calls(activity.pk, others))
    costs = [model.cost for model in models if model.cost is not None]
    if not models:
        return None
    return Spend(
        money(sum(costs, Decimal(0)) if costs else None),
        any(model.unpriced_calls for model in models),
        has_children,
        [(model.key or "", compact(model.total_tokens), money(model.cost)) for model in models],
    )


def usage(activity: Activity) -> list[tuple[str, str]]:
    """Return the names and numbers of the usage, the tokens in all last, and the cost if there are any."""
    names = {
        "requests": _("Requests"),
        "input_tokens": _("Input tokens"),
        "output_tokens": _("Output tokens"),
        "cached_tokens": _("Cached tokens"),
        "reasoning_tokens": _("Reasoning tokens"),
    }
    known = {name: count for name, count in (activity.usage or {}).items() if name != "total_tokens"}
    total = total_tokens(activity.usage)
    lines = [(names.get(name) or name.replace("_", " ").capitalize(), count_text(n)) for name, n in known.items()]
    if total:
        lines += [(_("Total tokens"), count_text(total)), (_("Cost"), money(activity.cost))]
    return lines


def steps_with_values(activity: Activity, views: Sequence[StepView]) -> list[Step]:
    """Return the steps of a pipeline with their inputs and outputs; one query if there are any steps."""
    if not views:
        return []
    prefixes = StepRun.objects.filter(activity_id=activity.pk).annotate(text=JsonPrefix("result", MAX_JSON + 1))
    outputs = {name: text or "" for name, text in prefixes.order_by().values_list("name", "text")}
    labels, found = _step_labels(), list[Step]()
    given = pretty_json(activity.context)
    for number, view in enumerate(views, 1):
        output = _pretty(outputs.get(view.name, ""))
        tone = {"pending": "unknown", "waiting": "suspended"}.get(view.state, view.state)
        is_cut = max(len(given), len(output)) > MAX_JSON
        found.append(
            Step(
                view,
                number,
                labels[view.state],
                tone,
                duration(view.seconds),
                given[:MAX_JSON] if view.tries else "",
                output[:MAX_JSON],
                is_cut,
            )
        )
        given = output
    return found


def _step_labels() -> dict[str, str]:
    return {
        "pending": _("Not started"),
        "running": _("Running"),
        "waiting": _("Waiting"),
        "complete": _("Complete"),
        "error": _("Failed"),
    }


def _pretty(text: str) -> str:
    """Return stored JSON indented, or as it is if its end is missing."""
    if not text or text == "null":
        return ""
    try:
        return pretty_json(json.loads(text))
    except ValueError:
        return text


def facts(activity: Activity) -> dict[str, Any]:
    """Return the times and spans that the page shows."""
    now = timezone.now()
    started, ended = activity.started_at, activity.finished_at
    total = total_tokens(activity.usage)
    return {
        "waited": duration(span(activity.created_at, started)) if started and activity.attempt <= 1 else "",
        "took": duration(span(started, ended or now)),
        "tokens": compact(total) if total else "",
        "cost": "" if activity.cost is None else money(activity.cost),
        "times": {
            name: moment(when)
            for name in ("created_at", "started_at", "finished_at", "run_after")
            if (when := getattr(activity, name))
        },
        "is_due_later": bool(activity.run_after and activity.is_active and activity.run_after > now),
    }
