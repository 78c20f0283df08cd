"""Long-polling: wait for an activity to change, without a database connection."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID

from django.db import connections

from ..models import FINISHED, Activity, ActivityLog
from ..results import watching

LOOK = 0.5  # seconds between two looks at the row; its end is told at once


def wait_for_change(agent_id: UUID, seconds: float, after: int | None) -> None:
    """Return when the activity's status has changed, or after `seconds`; at once if it is over.

    With `after`, also as soon as there is a log line with a larger id, and at once if there is one already.
    """
    deadline = time.monotonic() + seconds
    before = _look(agent_id, after)
    if before is None or before[0] in FINISHED or (after is not None and _has_newer_log(agent_id, after)):
        return
    ended = threading.Event()
    with watching(agent_id, ended.set):
        while _look(agent_id, after) == before and (left := deadline - time.monotonic()) > 0:
            _close_connections()
            ended.wait(min(left, LOOK))
            ended.clear()


def _look(agent_id: UUID, after: int | None) -> tuple[Any, ...] | None:
    """Return what is watched, or None if there is no such activity any more."""
    # Each log line sets the timestamp, so one row tells of them all.
    columns = ["status"] if after is None else ["status", "latest_log_timestamp"]
    return Activity.objects.filter(agent_id=agent_id).values_list(*columns).first()


def _has_newer_log(agent_id: UUID, after: int) -> bool:
    return ActivityLog.objects.filter(activity_id=agent_id, id__gt=after).exists()


def _close_connections() -> None:
    """Give this thread's connections back; where a transaction is open around the caller, it stays."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
