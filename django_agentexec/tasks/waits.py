"""Checks of a wait for results: who may wait for which activity, and for how long. Behind `get_result` and `gather`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from ..activity.current import current_attempt
from ..activity.store import database
from ..exceptions import InvalidOption
from ..models import Activity
from ..validation import validate_id
from .enqueue import ActivityHandle

Awaited = ActivityHandle | UUID
Timeout = float | timedelta | None


def awaited_id(task: object) -> UUID:
    """Return the id of what is awaited; a text may be one, too. Raises `TypeError` for anything else."""
    if isinstance(task, ActivityHandle):
        return task.agent_id
    if not isinstance(task, (UUID, str)):
        hint = "; unpack it: gather(*runs)" if isinstance(task, (Sequence, set, frozenset, dict)) else ""
        raise TypeError(f"To wait for {task!r:.200}, give what `enqueue` or `spawn` returned, or an agent_id{hint}.")
    return validate_id(task)


def seconds_of(timeout: Timeout) -> float:
    """Return a time limit in seconds; None is no limit. Raises `InvalidOption`."""
    if timeout is None:
        return math.inf
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise InvalidOption(
            f"timeout={timeout!r} is impossible; give seconds from 0, a timedelta, or None to wait without a limit."
        )
    return float(seconds)


def check_not_itself(agent_id: UUID) -> None:
    """Raise `InvalidOption` where a handler would wait for the end of its own activity."""
    if current_attempt(agent_id):
        raise InvalidOption(
            f"Activity {agent_id} waits for its own result, which only comes when its handler has returned."
        )


def check_no_deadlock(awaited_ids: Activity) -> None:
    """Raise `InvalidOption` if `awaited`, as it is now, is suspended until the calling handler's activity ends."""
    attempt = current_attempt()
    if attempt and awaited_ids.is_suspended and _is_suspended_for(awaited_ids.agent_id, attempt.agent_id):
        raise InvalidOption(
            f"Activity {attempt.agent_id} waits for the result of {awaited_ids.agent_id}, which is suspended until its "
            f"children have ended, and {attempt.agent_id} is one of them (or of theirs): neither would ever end. "
            "Return to the parent what it needs, and let it go on from there."
        )


def _is_suspended_for(ancestor: UUID, child: UUID) -> bool:
    """Whether each parent on the way from `child` up to `ancestor` waits for the one below it."""
    while True:
        parents = Activity.objects.using(database()).filter(children__agent_id=child)
        parent = parents.only("status", "blocking_child_id", "awaited_ids").first()
        if parent is None or not parent.is_suspended or str(child) not in (parent.awaited_ids or []):
            return False
        if parent.agent_id == ancestor:
            return True
        child = parent.agent_id
