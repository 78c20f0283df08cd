"""Log lines of changes: messages, their public forms, and the templates of the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ..bulk_sql import build_row
from ..current import actor_name
from ..models import Activity, ActivityLog, LineType
from ..public_errors import public_error
from ..validation import storable_text

SHORT_DELAY = 10.0  # seconds; a message about a shorter delay omits the time at which it ends

# The fields that every operation with a log line changes.
LOGGED = ("latest_log_message", "latest_log_timestamp", "updated_at")

_message_type: ContextVar[LineType] = ContextVar("agentexec_message_type", default=LineType.PROGRESS)


@contextmanager
def messages_of_type(type: LineType) -> Iterator[None]:
    """Give the messages that are logged inside the block this type instead of `progress`."""
    token = _message_type.set(type)
    try:
        yield
    finally:
        _message_type.reset(token)


def message_type() -> LineType:
    """Return the type of messages that are logged now."""
    return _message_type.get()


def log(
    activity: Activity,
    message: str,
    now: datetime,
    *,
    public_message: str | None = None,
    internal_message: str = "",
    traceback: str = "",
    type: LineType = LineType.STATUS,
) -> ActivityLog:
    """Set the row's newest message, and return its log line.

    Users with the monitor permission read `internal_message`, if it is given; all others, and the row, get `message`.
    """
    activity.latest_log_message = storable_text(message)
    activity.latest_log_timestamp = activity.updated_at = now
    line = line_of(activity, storable_text(traceback), public_message, type)
    if internal_message:
        line.message, line.public_message = storable_text(internal_message), line.message
    return line


class Failure(Protocol):
    """An error and its public part."""

    @property
    def error(self) -> str:
        """Its text in one line."""

    @property
    def public_error(self) -> str | None:
        """The text for users without the monitor permission; None: its class."""


def log_error(
    activity: Activity,
    template: str,
    values: Mapping[str, object],
    failure: Failure,
    now: datetime,
    *,
    traceback: str = "",
) -> ActivityLog:
    """Set an error and the message about it, each also in its public form; return the log line."""
    error, public = storable_text(failure.error), failure.public_error
    activity.error, activity.public_error = error, None if public is None else storable_text(public)
    shown = public_error(error, activity.public_error)
    text, public_text = (_fill_error(template, each, values) for each in (error, shown))
    if error not in text:
        text = public_text  # the template truncates or quotes the error, so redaction could not find the rest of it
    return log(activity, text, now, public_message=storable_text(public_text), traceback=traceback)


def _fill_error(template: str, error: str, values: Mapping[str, object]) -> str:
    """Fill in a template; an error that ends a sentence needs no further full stop."""
    text = fill(template, **values, error=error)
    return text.replace(f"{error}.", error) if error.endswith((".", "?", "!")) else text


def line_of(
    activity: Activity, traceback: str = "", public_message: str | None = None, type: LineType = LineType.STATUS
) -> ActivityLog:
    """Return the log line of a row's newest message."""
    return build_row(
        ActivityLog,
        {
            "id": None,
            "activity_id": activity.agent_id,
            "message": activity.latest_log_message,
            "status": activity.status,
            "percentage": activity.percentage,
            "attempt": activity.attempt,
            "traceback": traceback,
            "public_message": public_message,
            "actor": actor_name(),
            "type": type.value,
            "created_at": activity.latest_log_timestamp,
        },
    )


def delay_text(seconds: float, now: datetime) -> str:
    """Return a delay as text, with the time at which it ends if it is not short."""
    text = f"{seconds:.1f} s"
    if seconds < SHORT_DELAY:
        return text
    due = now + timedelta(seconds=seconds)
    if due.tzinfo is None:  # USE_TZ is off: local time of the project
        return f"{text}, at {due:%Y-%m-%d %H:%M:%S}"
    return f"{text}, at {due.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def fill(template: str, **values: object) -> str:
    """Fill in a message template of the settings; a template with invalid placeholders is returned unchanged."""
    try:
        return template.format(**values)
    except (LookupError, ValueError, AttributeError, TypeError):
        return template
