"""The outcome of an ended activity: its typed result, or an exception."""

from __future__ import annotations

from typing import Any

from ..exceptions import TaskCanceled, TaskFailed, UnknownTask
from ..models import Activity, Status
from ..registry import registry


def outcome(activity: Activity) -> Any:
    """Return the result in its declared type; raise `TaskFailed` or `TaskCanceled` where there is none."""
    match activity.status:
        case Status.COMPLETE:
            try:
                definition = registry.get(activity.agent_type)
            except UnknownTask:
                return activity.result  # as JSON, since its type is not known here
            return definition.load_result(activity.result)
        case Status.CANCELED:
            raise TaskCanceled(activity.agent_id)
    raise TaskFailed(activity.agent_id, activity.error, activity.attempt, activity.traceback, activity.is_final)
