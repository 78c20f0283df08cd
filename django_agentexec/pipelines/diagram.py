"""A pipeline as a diagram, in Mermaid's language, with each step's state and time; for the admin's detail page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ..exceptions import ActivityNotFound, UnknownTask
from ..models import Activity, StepRun
from ..tasks.registry import registry
from ..validation import validate_id
from .steps import Step

STATES = {
    "pending": "fill:#f3f4f6,stroke:#9ca3af,color:#374151",
    "running": "fill:#dbeafe,stroke:#2563eb,color:#1e3a8a",
    "waiting": "fill:#fef9c3,stroke:#ca8a04,color:#713f12",
    "complete": "fill:#dcfce7,stroke:#16a34a,color:#14532d",
    "error": "fill:#fee2e2,stroke:#dc2626,color:#7f1d1d",
}
"""The states a step is shown in, with their colours."""


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as it is shown. `seconds` is None before it has begun and while it runs."""

    name: str
    title: str
    state: str
    seconds: float | None
    tries: int
    error: str


def steps_of(activity: Activity | UUID) -> list[StepView]:
    """Return the steps of a pipeline's activity in their order, or [] for any other task. Two queries at most.

    Raises `ActivityNotFound`.
    """
    row = activity if isinstance(activity, Activity) else _row(activity)
    runs = {run.name: run for run in row.steps.defer("result")}
    declared = _declared(row.agent_type)
    gone = [run for run in runs.values() if run.name not in {step.name for step in declared}]
    return [
        *(_view(row, step.name, step.title, runs.get(step.name)) for step in declared),
        *(_view(row, run.name, run.name, run) for run in gone),
    ]


def mermaid(activity: Activity | UUID) -> str:
    """Return a flowchart of the pipeline's steps with their states and times, or "" for any other task."""
    return mermaid_of(steps_of(activity))


def mermaid_of(views: Sequence[StepView]) -> str:
    """Return a flowchart of these steps, or "" if there are none."""
    if not views:
        return ""
    lines = ["flowchart LR"]
    for number, view in enumerate(views):
        label = "<br/>".join([f"{number + 1}. {_escaped(view.title)}", _state_text(view)])
        lines.append(f'    s{number}["{label}"]:::{view.state}')
    lines += [f"    s{number} --> s{number + 1}" for number in range(len(views) - 1)]
    used = {view.state for view in views}
    return "\n".join([*lines, *(f"    classDef {state} {STATES[state]}" for state in STATES if state in used)])


def _row(agent_id: UUID) -> Activity:
    row = Activity.objects.without_payloads().filter(agent_id=validate_id(agent_id)).first()
    if row is None:
        raise ActivityNotFound(agent_id)
    return row


def _declared(name: str) -> tuple[Step, ...]:
    try:
        handler = registry.get(name).handler
    except UnknownTask:
        return ()
    pipeline = getattr(handler, "pipeline", None)
    return pipeline.steps if pipeline else ()


def _view(row: Activity, name: str, title: str, run: StepRun | None) -> StepView:
    if run is None:
        return StepView(name, title, "pending", None, 0, "")
    state = str(run.state)
    if state == "running":
        # Its own end is never written when the activity is canceled, times out or dies under it.
        state = "waiting" if row.is_suspended else "running" if row.is_active else "error"
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else None
    return StepView(name, title, state, seconds, run.tries, run.error)


def _state_text(view: StepView) -> str:
    parts = [view.state]
    if view.seconds is not None:
        parts.append(f"{view.seconds:.1f} s")
    if view.tries > 1:
        parts.append(f"{view.tries} tries")
    return ", ".join(parts)


def _escaped(text: str) -> str:
    """Return text that ends no label: Mermaid has its own form of entities."""
    for character, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("`", "#96;")):
        text = text.replace(character, code)
    return " ".join(text.split())
