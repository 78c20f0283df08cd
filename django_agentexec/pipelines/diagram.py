"""Mermaid diagrams of pipelines, with the state and duration of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from asgiref.sync import sync_to_async

from ..blocking import blocking
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
"""The displayed states of a step with their Mermaid styles."""


@dataclass(frozen=True, slots=True)
class StepView:
    """A step for display. `seconds` is None until the step has ended."""

    name: str
    title: str
    state: str
    seconds: float | None
    tries: int
    error: str


def steps_of(activity: Activity | UUID) -> list[StepView]:
    """Return the steps of a pipeline's activity in order, or [] for other tasks. Makes at most two queries.

    Raises `ActivityNotFound`.
    """
    row = activity if isinstance(activity, Activity) else _row(activity)
    runs = {run.name: run for run in row.steps.defer("result")}
    declared = _declared(row.agent_type)
    undeclared = [run for run in runs.values() if run.name not in {step.name for step in declared}]
    return [
        *(_view(row, step.name, step.title, runs.get(step.name)) for step in declared),
        *(_view(row, run.name, run.name, run) for run in undeclared),
    ]


@blocking
def mermaid(activity: Activity | UUID) -> str:
    """Return a Mermaid flowchart of the pipeline's steps with states and durations, or "" for other tasks.

    Raises `ActivityNotFound`.
    """
    return mermaid_of(steps_of(activity))


async def amermaid(activity: Activity | UUID) -> str:
    """Async version of `mermaid`."""
    return await sync_to_async(mermaid)(activity)


def mermaid_of(views: Sequence[StepView]) -> str:
    """Return a Mermaid flowchart of steps, or "" for an empty sequence."""
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
        # The end of the step is not written if the activity is canceled, times out or crashes.
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
    """Escape text for a Mermaid label, in Mermaid's own entity syntax."""
    for character, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("`", "#96;")):
        text = text.replace(character, code)
    return " ".join(text.split())
