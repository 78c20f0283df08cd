"""The public signals of committed changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError, router

from ..models import FINISHED, Activity, ActivityLog
from ..signals import activities_changed, activity_changed, activity_ended

if TYPE_CHECKING:
    from .transitions import Operation

logger = logging.getLogger(__name__)

Change = tuple[Activity, ActivityLog | None, "Operation | None"]
"""A changed row, the log line of the change, and the operation (None: the row is new)."""


def has_receivers() -> bool:
    """Whether the public signals of changes have receivers."""
    signals = (activity_changed, activities_changed, activity_ended)
    return any(signal.receivers and signal.has_listeners(Activity) for signal in signals)


def send_change_signals(changes: Sequence[Change]) -> None:
    """Send the public signals of the changes of one commit, in order. Exceptions of receivers are logged."""
    activities_changed.send_robust(Activity, changes=list(changes))
    metadata = _metadata_of_ended(changes) if activity_ended.has_listeners(Activity) else {}
    for activity, line, operation in changes:
        activity_changed.send_robust(Activity, activity=activity, log=line, operation=operation)
        if _is_end(activity, line) and activity.agent_id in metadata:
            activity_ended.send_robust(
                Activity,
                agent_id=activity.agent_id,
                status=activity.status,
                metadata=metadata[activity.agent_id],
            )


def _is_end(activity: Activity, line: ActivityLog | None) -> bool:
    # Usage is added after a cancel, too, without a log line.
    return line is not None and line.status in FINISHED and activity.status in FINISHED


def _metadata_of_ended(changes: Sequence[Change]) -> dict[UUID, dict[str, Any]]:
    ended = [activity.agent_id for activity, line, _ in changes if _is_end(activity, line)]
    if not ended:
        return {}
    using = router.db_for_write(Activity)
    rows = Activity.objects.using(using).filter(agent_id__in=ended)
    try:
        return dict(rows.values_list("agent_id", "metadata"))
    except (DatabaseError, InterfaceError):
        logger.exception("Could not send activity_ended for %d activities: their metadata cannot be read.", len(ended))
        return {}
