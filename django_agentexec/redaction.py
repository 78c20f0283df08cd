"""Redacts what tells of the servers: tracebacks, workers' names, and texts of errors that were not written for users.

REST, server-sent events, websockets and the admin pass what they show to others than monitors through here.
"""

from __future__ import annotations

from typing import Any

from .models import Activity, ActivityLog
from .public_errors import neutral_error, public_error, public_message_of

_PRIVATE = ("traceback", "worker")
_NESTED = ("activity", "activities", "items", "logs")


def redact_internals(shape: dict[str, Any]) -> dict[str, Any]:
    """Return a dumped activity, log line, page or event without what tells of the servers."""
    shown = {key: "" if key in _PRIVATE else _inner(value) if key in _NESTED else value for key, value in shape.items()}
    if error := shape.get("error"):
        shown["error"] = shape.get("public_error") or neutral_error(error)
        if latest := shape.get("latest_log_message"):
            shown["latest_log_message"] = latest.replace(error, shown["error"])
    if (message := shape.get("public_message")) is not None:
        shown["message"], shown["public_message"] = message, None
    if actor := shape.get("actor"):
        shown["actor"] = _place(actor)
    return shown


def redact_row(activity: Activity) -> None:
    """Do to a row what `for_strangers` does to its shape. In memory: the row must not be saved."""
    shown = public_error(activity.error, activity.public_error)
    if activity.error:
        activity.latest_log_message = activity.latest_log_message.replace(activity.error, shown)
    activity.error, activity.worker, activity.traceback = shown, "", ""


def redact_line(line: ActivityLog) -> None:
    """Do to a line of the log what `for_strangers` does to its shape. In memory: the line must not be saved."""
    if line.public_message is not None:
        line.message = line.public_message
    elif line.traceback:
        line.message = public_message_of(line.traceback)
    line.traceback = ""
    line.actor = line.actor and _place(line.actor)


def _place(actor: str) -> str:
    """Return an actor without the name of an account of the machine: `terminal` of `terminal:root`."""
    place, colon, _ = actor.partition(":")
    return place if colon else actor


def _inner(value: Any) -> Any:
    if isinstance(value, list):
        return [redact_internals(one) for one in value]
    return redact_internals(value) if isinstance(value, dict) else value
