"""Removal of stored content when an activity has ended, as `TRACE_CONTENT` requires."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..conf import conf
from ..models import FINISHED, Activity, AgentCall
from .setting_aside import set_aside

_DROPPED = {"full": (), "outputs": ("request", "arguments"), "none": ("request", "arguments", "output")}


def drop_content(activities: Iterable[Activity], using: str) -> None:
    """Delete the content of the calls of these activities that have ended, in the transaction of their end.

    With `none` a later attempt could replay nothing, so the calls are set aside, too.
    """
    names = _DROPPED[conf.TRACE_CONTENT]
    if not names:
        return
    ended = [activity for activity in activities if activity.status in FINISHED]
    if ended:
        calls = AgentCall.objects.using(using).filter(activity_id__in=[each.agent_id for each in ended])
        calls.update(**dict.fromkeys(names))
    if "output" in names:
        for activity in ended:
            set_aside(activity)


def drop_late_content(activity: Activity, calls: Sequence[AgentCall]) -> None:
    """Empty calls in memory that are about to be written after the end of their activity."""
    names = _DROPPED[conf.TRACE_CONTENT]
    if not names or activity.status not in FINISHED:
        return
    for call in calls:
        for name in names:
            setattr(call, name, None)
        if "output" in names and call._state.adding:
            call.set_aside = call.set_aside or max(activity.fence, 1)
