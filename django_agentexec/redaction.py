"""Redaction of tracebacks, worker names and internal error texts for users without the monitor permission.

REST, server-sent events, websockets and the admin redact everything that they show to such users.
"""

from __future__ import annotations

from typing import Any

from .models import Activity, ActivityLog
from .public_errors import neutral_error, public_error, public_message_of

_PRIVATE = ("traceback", "worker")
_NESTED = ("activity", "activities", "approval", "call", "items", "logs")


def redact_internals(data: dict[str, Any]) -> dict[str, Any]:
    """Return a serialized activity, log line, page or event without server internals."""
    shown = {
        key: "" if key in _PRIVATE else _redact_nested(value) if key in _NESTED else value
        for key, value in data.items()
    }
    if error := data.get("error"):
        shown["error"] = data.get("public_error") or neutral_error(error)
        if latest := data.get("latest_log_message"):
            shown["latest_log_message"] = latest.replace(error, shown["error"])
    if (message := data.get("public_message")) is not None:
        shown["message"], shown["public_message"] = message, None
    if actor := data.get("actor"):
        shown["actor"] = public_actor(actor)
    if decided_by := data.get("decided_by"):
        shown["decided_by"] = public_actor(decided_by)
    return shown


def redact_row(activity: Activity) -> None:
    """Redact a row in memory, as `redact_internals` redacts its serialized form. The row must not be saved."""
    shown = public_error(activity.error, activity.public_error)
    if activity.error:
        activity.latest_log_message = activity.latest_log_message.replace(activity.error, shown)
    activity.error, activity.worker, activity.traceback = shown, "", ""


def redact_line(line: ActivityLog) -> None:
    """Redact a log line in memory, as `redact_internals` redacts its serialized form. The line must not be saved."""
    if line.public_message is not None:
        line.message = line.public_message
    elif line.traceback:
        line.message = public_message_of(line.traceback)
    line.traceback = ""
    line.actor = line.actor and public_actor(line.actor)


def public_actor(actor: str) -> str:
    """Return an actor without the name of a system account: `terminal` for `terminal:root`."""
    source, colon, _ = actor.partition(":")
    return source if colon else actor


def _redact_nested(value: Any) -> Any:
    if isinstance(value, list):
        return [redact_internals(item) for item in value]
    return redact_internals(value) if isinstance(value, dict) else value
