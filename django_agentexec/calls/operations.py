"""Writes of calls: each changes its activity and the calls in one transaction, under the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from ..activity.log_lines import LOGGED, log
from ..activity.transitions import OwnedOperation
from ..budgets.notices import announce, line_text, public_line_text
from ..bulk_sql.fields import Insert, Update
from ..conf import in_site_language
from ..exceptions import StaleAttempt
from ..models import Activity, ActivityLog, AgentCall
from ..signals import calls_finished
from ..validation import storable_value
from .setting_aside import drop_late_content, set_aside

# One set for all changes, so that the changes of a batch are one statement.
CHANGED_FIELDS = (
    *("state", "agent", "name", "provider", "digest", "has_changed", "arguments", "output", "error", "input_tokens"),
    *("cached_tokens", "output_tokens", "reasoning_tokens", "cost", "is_cached", "attempt", "fence"),
    *("started_at", "finished_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginCall(OwnedOperation):
    """The start of calls. Refused if the attempt does not own its activity, or a budget cannot cover the charge."""

    update_fields = ("updated_at",)

    new: Sequence[AgentCall] = ()
    """New rows."""
    again: Sequence[AgentCall] = ()
    """Rows of calls that an earlier attempt has started and not ended."""

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        if self.charge is not None:
            self.charge.reserve()
        activity.updated_at = now
        return None

    def related_writes(self, activity: Activity, now: datetime) -> Sequence[Insert | Update]:
        reserved = self.charge.writes(inserts=True) if self.charge is not None else []
        return [*_writes(self.new, self.again), *reserved]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCall(OwnedOperation):
    """The end of calls, with their usage. If they are progress, earlier crashes no longer count against the activity.

    Accepted until another attempt has started, also after a cancel: the call has been paid.
    """

    update_fields = (*LOGGED, "usage", "cost", "discounted_crashes")
    read_fields = ("usage", "cost", "traceparent")
    acts_after_commit = True

    new: Sequence[AgentCall] = ()
    changed: Sequence[AgentCall] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    cost: Decimal | None = None
    is_progress: bool = True
    """Whether a later attempt does not make the calls again."""

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        if activity.fence != self.fence:
            raise StaleAttempt(f"Activity {self.agent_id} has been claimed again (fence {activity.fence}).")
        if self.usage:
            total = dict(activity.usage or {})
            for name, count in self.usage.items():
                total[name] = total.get(name, 0) + count
            activity.usage = total
        if self.cost is not None:
            activity.cost = (activity.cost or Decimal()) + self.cost
        if self.is_progress:
            activity.discounted_crashes = activity.crashes
        activity.updated_at = now
        if self.charge is None:
            return None
        self.charge.settle()
        if not self.charge.crossings or not activity.is_active:
            return None
        text = in_site_language(line_text, self.charge.crossings)
        return log(activity, in_site_language(public_line_text), now, internal_message=text)

    def related_writes(self, activity: Activity, now: datetime) -> Sequence[Insert | Update]:
        drop_late_content(activity, (*self.new, *self.changed))
        settled = self.charge.writes(inserts=False) if self.charge is not None else []
        return [*_writes(self.new, self.changed), *settled]

    @property
    def has_own_signals(self) -> bool:
        return self.charge is not None and bool(self.charge.crossings)

    def send_signals(self) -> None:
        if self.charge is not None:
            announce(self.charge.crossings)

    def after_commit(self, activity: Activity) -> None:
        calls_finished.send_robust(AgentCall, activity=activity, calls=(*self.new, *self.changed))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside(OwnedOperation):
    """Set the calls and approvals of these places aside, so that they are made again; they stay in the trace."""

    update_fields = ("updated_at",)

    path: str

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.updated_at = now
        return None

    def save_related(self, activity: Activity, now: datetime) -> None:
        set_aside(activity, self.path)


def make_storable(call: AgentCall, *names: str) -> None:
    """Replace what no database holds in these JSON columns."""
    for name in names:
        if call.__dict__.get(name) is not None:  # a deferred column has no entry
            setattr(call, name, storable_value(getattr(call, name)))


def _writes(new: Sequence[AgentCall], changed: Sequence[AgentCall]) -> list[Insert | Update]:
    writes: list[Insert | Update] = []
    if new:
        writes.append(Insert(AgentCall, new))
    if changed:
        writes.append(Update(AgentCall, changed, CHANGED_FIELDS))
    return writes
