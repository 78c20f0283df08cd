"""Calls and approvals that a later attempt no longer uses stay in the trace; `TRACE_CONTENT` removes their content."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Case, F, Max, OuterRef, Q, QuerySet, Subquery, Value, When

from ..conf import conf
from ..models import FINISHED, Activity, AgentCall, Approval, ApprovalStatus

_SEPARATORS = ("/", "^", "+")
_SIBLING = "~"
_DROPPED = {"full": (), "outputs": ("request", "arguments"), "none": ("request", "arguments", "output")}


def set_aside(activity: Activity, path: str | None = None) -> None:
    """Set aside the calls and approvals of the run at `path` and of everything inside it; without a path, all.

    Runs in the transaction that has locked the activity.
    """
    where = Q()
    if path is not None:
        where = Q(path=path)
        for separator in _SEPARATORS:
            where |= Q(path__startswith=path + separator)
    _set_aside(activity.agent_id, activity.fence, activity._state.db, where)


def set_aside_steps(agent_id: UUID, steps: Collection[str], using: str) -> None:
    """Set aside all that these steps of a pipeline have recorded. The caller has locked the activity."""
    where = Q(pk__in=[])
    for step in steps:
        where |= Q(path=step)
        for separator in (*_SEPARATORS, _SIBLING):
            where |= Q(path__startswith=step + separator)
    _set_aside(agent_id, 0, using, where)


def set_aside_decisions(agent_ids: Collection[UUID], using: str) -> None:
    """Set aside all approvals of these activities, whose calls are being deleted. The caller has locked them."""
    approvals = Approval.objects.using(using)
    same = approvals.filter(activity_id=OuterRef("activity_id")).order_by().values("activity_id")
    latest = Subquery(same.annotate(latest=Max("set_aside")).values("latest"))
    approvals.filter(activity_id__in=agent_ids, set_aside=0).update(set_aside=latest + 1)


def drop_content(ended: Sequence[Activity], using: str) -> None:
    """Delete the content of the calls of these activities, in the transaction of their end.

    With `none` a later attempt could replay nothing, so the calls are set aside, too.
    """
    names = _DROPPED[conf.TRACE_CONTENT]
    if not names:
        return
    calls = AgentCall.objects.using(using).filter(activity_id__in=[each.agent_id for each in ended])
    calls.update(**dict.fromkeys(names))
    if "output" in names:
        for activity in ended:
            set_aside(activity)


def drop_late_content(activity: Activity, calls: Sequence[AgentCall]) -> None:
    """Remove the content of calls in memory that are about to be written after the end of their activity."""
    names = _DROPPED[conf.TRACE_CONTENT]
    if not names or activity.status not in FINISHED:
        return
    for call in calls:
        for name in names:
            setattr(call, name, None)
        if "output" in names and call._state.adding:
            call.set_aside = call.set_aside or max(activity.fence, 1)


def _set_aside(agent_id: UUID, fence: int, using: str | None, where: Q) -> None:
    calls = AgentCall.objects.using(using).filter(activity_id=agent_id)
    calls.filter(where, set_aside=0).update(set_aside=_number(calls, fence))
    approvals = Approval.objects.using(using).filter(activity_id=agent_id)
    pending = Case(When(status=ApprovalStatus.PENDING, then=Value(ApprovalStatus.VOID)), default=F("status"))
    approvals.filter(where, set_aside=0).update(status=pending, set_aside=_number(approvals, fence))


def _number(rows: QuerySet[Any], fence: int) -> int:
    """Return the fence, or a larger number if the same place may have been set aside under this fence before."""
    return max(fence, (rows.aggregate(latest=Max("set_aside"))["latest"] or 0) + 1)
