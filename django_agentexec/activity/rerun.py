"""Retry and rerun: an ended activity runs again, a pipeline also from one of its steps. For `activity.retry`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import F, Q

from ..calls.setting_aside import set_aside, set_aside_steps
from ..conf import conf
from ..dispatch.push import stop_on_commit
from ..exceptions import InvalidOption, InvalidTransition
from ..models import FAILED_OR_CANCELED, FINISHED, Activity, ActivityLog, HookFlag, Status, StepRun
from ..translation import gettext as _
from .log_lines import LOGGED, log
from .store import apply, database
from .transitions import Cancel, EndOfWait, end_wait

ALL_FLAGS = 0x7FFF  # the largest value of the column


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(EndOfWait):
    """Queue the activity again, with all its automatic retries, under the same id and with its history."""

    update_fields: ClassVar[tuple[str, ...]] = (
        *(*LOGGED, "status", "percentage", "retries", "crashes", "started_at", "finished_at", "run_after"),
        *("blocking_child_id", "awaited_ids", "discounted_crashes", "is_final", "context", "lock_key", "waiting_for"),
        "fairness",
    )

    context: Mapping[str, Any] | None = None
    """A corrected context as JSON, replacing the stored context, with its `lock_key` and `fairness`."""
    lock_key: str | None = None
    fairness: str | None = None

    accepted_statuses: ClassVar[tuple[Status, ...]] = FAILED_OR_CANCELED

    fresh: bool = False
    """Whether the calls of its agents are made again; by default, recorded calls are replayed."""

    by_parent: bool = False
    """Whether its parent runs again and has spawned it again; otherwise a user or code retries it."""

    def prefetch(self, activity: Activity) -> None:
        if not self.by_parent and activity.hook_flags & HookFlag.CHILD and activity.status in self.accepted_statuses:
            parents = Activity.objects.using(activity._state.db).filter(children__agent_id=activity.agent_id)
            activity.ended_parent = (
                parents.filter(status__in=FAILED_OR_CANCELED).values_list("agent_id", flat=True).first()
            )

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.status not in self.accepted_statuses:
            raise InvalidTransition(
                _("Activity %(agent_id)s is %(status)s; only error and canceled can be retried.")
                % {"agent_id": self.agent_id, "status": activity.status},
                f"still {activity.status}" if activity.is_active else f"already {activity.status}",
            )
        if not activity.queue:
            raise InvalidTransition(
                _("Activity %(agent_id)s was never queued; its creator drives it.") % {"agent_id": self.agent_id},
                "never queued, driven by its creator",
            )
        if activity.ended_parent is not None:
            raise InvalidTransition(
                _(
                    "Activity %(agent_id)s is a child of %(ended_parent)s, which has failed or was canceled, "
                    "so nothing would use its result. Retry the parent, which runs its failed children again."
                )
                % {"agent_id": self.agent_id, "ended_parent": activity.ended_parent},
                "its parent has failed or was canceled; retry the parent",
            )
        activity.status, activity.percentage = Status.QUEUED, 0
        activity.retries = activity.crashes = activity.discounted_crashes = 0
        activity.started_at = activity.finished_at = activity.run_after = None
        activity.blocking_child_id, activity.awaited_ids, activity.is_final = None, None, False
        end_wait(activity)  # ended by a release without approvals
        if self.context is not None:
            activity.context, activity.lock_key = dict(self.context), self.lock_key or ""
            activity.fairness = self.fairness
        return log(activity, conf.ACTIVITY_MESSAGE_REQUEUED, now)

    def save_related(self, activity: Activity, now: datetime) -> None:
        EndOfWait.save_related(self, activity, now)
        # A retry by a person or code also applies to permanently failed children.
        if not self.by_parent and activity.hook_flags & HookFlag.PARENT:
            children = Activity.objects.using(activity._state.db).spawned_by(activity.agent_id)
            children.filter(is_final=True).update(is_final=False)
        if self.fresh:
            set_aside(activity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun(Retry):
    """Run a finished activity again, also after success, and delete its result."""

    update_fields: ClassVar[tuple[str, ...]] = (*Retry.update_fields, "result")
    accepted_statuses: ClassVar[tuple[Status, ...]] = FINISHED

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        line = Retry.apply(self, activity, now)
        activity.result = None
        return line


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
