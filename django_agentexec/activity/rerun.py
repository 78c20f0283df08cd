"""Retry with a choice: of a pipeline from one of its steps on, of anything from scratch. Called by `activity.retry`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import F, Q

from ..dispatch.push import stop_on_commit
from ..exceptions import InvalidOption
from ..models import Activity, HookFlag, StepRun
from .store import apply, database
from .transitions import Cancel

ALL_FLAGS = 0x7FFF  # the column's width


def reset_steps(agent_id: UUID, from_step: str | None) -> None:
    """Forget the checkpoints from this step on (None: all), so that they run again with children of their own.

    What they had spawned stays as history, belongs to no step any more, and is canceled if it still runs. In the
    caller's transaction, which holds the activity's lock. Raises `InvalidOption` for a step that has not run.
    """
    steps = StepRun.objects.using(database()).filter(activity_id=agent_id)
    names = None
    if from_step is not None:
        positions = dict(steps.values_list("name", "position"))
        if from_step not in positions:
            known = ", ".join(positions) or "none"
            raise InvalidOption(f"Activity {agent_id} has no step {from_step!r} that has run; there are: {known}.")
        steps = steps.filter(position__gte=positions[from_step])
        names = [name for name, at in positions.items() if at >= positions[from_step]]
    detach_children(agent_id, names)
    steps.delete()


def detach_children(agent_id: UUID, steps: Sequence[str] | None) -> None:
    """Let the children of these steps (None: all children) be nobody's: a new try spawns its own. Cancels active ones.

    In the caller's transaction, which holds the parent's lock.
    """
    children = Activity.objects.using(database()).spawned_by(agent_id)
    if steps is not None:
        children = children.filter(_of_steps(steps))
    active = [Cancel(agent_id=child) for child in children.active().values_list("agent_id", flat=True)]
    if active:
        stop_on_commit([row for row in apply(active) if isinstance(row, Activity)])
    children.update(spawn_key=None, hook_flags=F("hook_flags").bitand(~HookFlag.CHILD & ALL_FLAGS))
    parent = Activity.objects.using(database()).filter(agent_id=agent_id)
    fan_out = parent.values_list("fan_out", flat=True).first()
    if fan_out:
        kept = {} if steps is None else {name: entry for name, entry in fan_out.items() if name not in steps}
        parent.update(fan_out=kept or None)


def _of_steps(names: Sequence[str]) -> Q:
    wanted = Q(pk__in=[])
    for name in names:
        # The two forms of a key: numbered, or given.
        wanted |= Q(spawn_key__startswith=f"{name}#") | Q(spawn_key__startswith=f"{name}/")
    return wanted
