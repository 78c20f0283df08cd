"""Database operations of steps: each writes the activity and the step in one transaction, under the fence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..activity.log_lines import LOGGED, delay_text, fill, log, log_error
from ..activity.rerun import detach_children
from ..activity.transitions import OwnedOperation
from ..conf import conf
from ..models import Activity, ActivityLog, LineType, StepRun, StepState
from ..validation import storable_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOperation(OwnedOperation):
    """A write of one step."""

    name: str
    position: int
    """From 0."""
    count: int
    """The number of steps in the pipeline."""

    def _write_step(self, activity: Activity, **values: Any) -> None:
        rows = StepRun.objects.using(activity._state.db)
        values["position"] = self.position
        if not rows.filter(activity_id=self.agent_id, name=self.name).update(**values):
            rows.create(activity_id=self.agent_id, name=self.name, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginStep(StepOperation):
    """The start of a try, or its resumption after a crash or suspension."""

    update_fields = (*LOGGED, "percentage")

    title: str
    input_digest: str
    tries: int
    retries: int
    attempt: int
    is_resumed: bool
    has_new_input: bool
    """Whether the step ran before with another input; its previous children are then detached."""

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.percentage = 100 * self.position // self.count
        text = fill(conf.ACTIVITY_MESSAGE_STEP, number=self.position + 1, count=self.count, step=self.title)
        return log(activity, text, now, type=LineType.PROGRESS)

    def save_related(self, activity: Activity, now: datetime) -> None:
        if self.has_new_input:
            detach_children(self.agent_id, [self.name])
        values: dict[str, Any] = {"started_at": now, "finished_at": None, "result": None, "result_digest": ""}
        self._write_step(
            activity,
            state=StepState.RUNNING,
            input_digest=self.input_digest,
            tries=self.tries,
            retries=self.retries,
            attempt=self.attempt,
            **({} if self.is_resumed else values),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishStep(StepOperation):
    """The checkpoint: the result of a finished step. Earlier crashes no longer count against the activity."""

    update_fields = ("percentage", "updated_at", "discounted_crashes")

    result: Any
    result_type: str
    result_digest: str

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.percentage = 100 * (self.position + 1) // self.count
        activity.discounted_crashes, activity.updated_at = activity.crashes, now
        return None

    def save_related(self, activity: Activity, now: datetime) -> None:
        self._write_step(
            activity,
            state=StepState.COMPLETE,
            result=self.result,
            result_type=self.result_type,
            result_digest=self.result_digest,
            error="",
            finished_at=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailStep(StepOperation):
    """The failure of a try. `delay` is the number of seconds until the next try, or None for no further try."""

    update_fields = (*LOGGED, "error", "public_error")
    read_fields = LOGGED

    title: str
    error: str
    public_error: str | None = None
    delay: float | None

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        if self.delay is None:
            activity.updated_at = now
            return None  # the failure of the activity is logged instead
        values = {"step": self.title, "delay": delay_text(self.delay, now)}
        return log_error(activity, conf.ACTIVITY_MESSAGE_STEP_RETRY, values, self, now)

    def save_related(self, activity: Activity, now: datetime) -> None:
        self._write_step(activity, state=StepState.ERROR, error=storable_text(self.error), finished_at=now)
