"""Retry of a pipeline from a step, or of any activity from scratch, for `activity.retry`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import F, Q

from ..calls.setting_aside import set_aside_steps
from ..dispatch.push import stop_on_commit
from ..exceptions import InvalidOption
from ..models import Activity, HookFlag, StepRun
from ..translation import gettext as _
from .store import apply, database
from .transitions import Cancel

ALL_FLAGS = 0x7FFF  # the largest value of the column


def reset_steps(agent_id: UUID, from_step: str | None) -> None:
    """Delete the checkpoints from this step (None: all), so that these steps run again and spawn new children.

    Their earlier children stay as history, detached from the steps; active children are canceled. Recorded calls of the
    steps are set aside; those of all steps by `Rerun` itself. Runs in the caller's
    transaction, which holds the activity's lock. Raises `InvalidOption` for a step that has not started.
    """
    steps = StepRun.objects.using(database()).filter(activity_id=agent_id)
    names = None
    if from_step is not None:
        positions = dict(steps.values_list("name", "position"))
        if from_step not in positions:
            started = ", ".join(positions) or "none"
            raise InvalidOption(
                _("Activity %(agent_id)s has no step %(from_step)r that has started; started steps: %(started)s.")
                % {"agent_id": agent_id, "from_step": from_step, "started": started}
            )
        steps = steps.filter(position__gte=positions[from_step])
        names = [name for name, position in positions.items() if position >= positions[from_step]]
        set_aside_steps(agent_id, names, database())
    detach_children(agent_id, names)
    steps.delete()


def detach_children(agent_id: UUID, steps: Sequence[str] | None) -> None:
    """Detach the children of these steps (None: all children), and cancel active children; a new try spawns others.

    Runs in the caller's transaction, which holds the parent's lock.
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
        # A spawn key is numbered ("step#1") or named ("step/name").
        wanted |= Q(spawn_key__startswith=f"{name}#") | Q(spawn_key__startswith=f"{name}/")
    return wanted
