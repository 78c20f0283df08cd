"""The collection of a rolling deploy for its judgment, with the models of the new release, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django_agentexec.models import Activity
from django_agentexec.schedules.models import ScheduleRun
from tests.chaos.collect import collect as collect_history
from tests.chaos.observer import Event
from tests.chaos.rolling_deploy.agents import TICK
from tests.chaos.rolling_deploy.judgment import Deploy, Tick, releases_of

if TYPE_CHECKING:
    from tests.chaos.rolling_deploy.trial import DeployStage


def collect(stage: DeployStage, events: Sequence[Event], exit_codes: dict[str, list[int]]) -> Deploy:
    """Return what an ended deploy has left behind."""
    history = collect_history(events, stage.left_over(), exit_codes)
    # All activities of the schedule have the same name.
    history = replace(history, rows=[row for row in history.rows if row.task != TICK])
    children = Activity.objects.filter(parent__isnull=False).values_list("agent_id", "parent_id")
    ticks = list(_ticks())
    due = {tick.agent_id for tick in ticks}
    enqueued = Activity.objects.filter(agent_type=TICK).values_list("agent_id", flat=True)
    return Deploy(
        history=history,
        parents={str(child): str(parent) for child, parent in children},
        effects=(stage.folder / "effects.log").read_text().splitlines(),
        ticks=ticks,
        unscheduled=[str(agent_id) for agent_id in enqueued if str(agent_id) not in due],
        logs={path.name: path.read_text(errors="replace") for path in sorted(stage.folder.glob("*.log"))},
    )


def _ticks() -> Iterable[Tick]:
    for run in ScheduleRun.objects.select_related("activity").order_by("due_at"):
        status = run.activity.status if run.activity else ""
        yield Tick(run.due_at.timestamp(), run.kind, str(run.activity_id or ""), status)


def figures(deploy: Deploy, numbers: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """Return the numbers of a deploy for its report."""
    history = deploy.history
    producers = {event.agent_id: releases_of(event.pool, numbers) for event in history.of("enqueued")}
    pools = [(producers.get(e.agent_id, "a handler"), releases_of(e.pool, numbers)) for e in history.executions]
    died = [execution for execution in history.executions if execution.how == "died"]
    completed = sum(row.status == "complete" for row in history.rows)
    scheduled = sum(tick.status == "complete" for tick in deploy.ticks)
    return {
        "activities": dict(Counter(row.status for row in history.rows)),
        "by task": dict(Counter(f"{row.task} {row.status}" for row in history.rows)),
        "enqueued by": dict(Counter(producers.values())),
        "executions by enqueuer and pool": dict(Counter(f"{by}, {pool} pool" for by, pool in pools)),
        "begun in one release, ended in the other": _moved(deploy, numbers),
        "executions cut off by a kill": len(died),
        "effects": len(deploy.effects),
        "effects of completed activities": completed + scheduled,
        "due times": dict(Counter(tick.kind for tick in deploy.ticks)),
        "retries by hand": sum(1 for _ in history.of("retried")),
        "cancels": sum(1 for _ in history.of("canceled")),
    }


def _moved(deploy: Deploy, numbers: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """Return the number of activities whose first and last executions were in different releases, by task."""
    moved: Counter[str] = Counter()
    for row in deploy.history.rows:
        executions = deploy.history.executions_of.get(row.agent_id, [])
        if executions and len({releases_of(executions[place].pool, numbers) for place in (0, -1)}) > 1:
            moved[row.task] += 1
    return dict(moved)
