"""What goes wrong, as REST framework's exceptions: the package's own errors, and Pydantic's field by field."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pydantic
from rest_framework import exceptions, status
from rest_framework.settings import api_settings

from ..exceptions import (
    ActivityLocked,
    ActivityNotFound,
    ContextTooLarge,
    InvalidContext,
    InvalidOption,
    NotAuthorized,
    QueueUnavailable,
    UnknownTask,
)
from ..outages import is_outage

logger = logging.getLogger(__name__)

RETRY_AFTER = 1  # seconds; an activity may be over in one
UNAVAILABLE_RETRY_AFTER = 5  # seconds; a failover takes about that long


class Conflict(exceptions.APIException):
    """409: the state of the activity does not allow it."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"

    def __init__(self, detail: str, reason: str, state: str, *, wait: int | None = None) -> None:
        super().__init__({"detail": detail, "reason": reason, "status": state})
        self.wait = wait  # REST framework makes it the Retry-After header


class Gone(exceptions.APIException):
    """410: it was there once."""

    status_code = status.HTTP_410_GONE
    default_code = "gone"


class TooLarge(exceptions.APIException):
    """413: more than the settings allow."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class Unprocessable(exceptions.APIException):
    """422: well-formed, but not possible for this activity."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "unprocessable"


class KeyReused(Unprocessable):
    """422: an idempotency key came with another request than before."""

    default_code = "idempotency_key_reused"
    default_detail = "This Idempotency-Key was used with another request before. Use a new key for a new request."


class NeedsAsgi(exceptions.APIException):
    """501: the server cannot do it."""

    status_code = status.HTTP_501_NOT_IMPLEMENTED
    default_code = "needs_asgi"
    default_detail = (
        "Events need an ASGI server, and this one speaks WSGI. Poll the activity with ?wait= and ?after= instead."
    )


class Unavailable(exceptions.APIException):
    """503: a server that the answer needs is unavailable. With a Retry-After header."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"
    default_detail = "The database is unavailable at present, or accepts no changes. Try again later."
    wait = UNAVAILABLE_RETRY_AFTER  # REST framework makes it the header


def translated(error: Exception) -> Exception:
    """Return what REST framework should make of `error`: itself, unless it is one of the package's own."""
    match error:
        case ActivityNotFound() | UnknownTask():
            return exceptions.NotFound(str(error) if isinstance(error, ActivityNotFound) else None)
        case NotAuthorized():
            return exceptions.PermissionDenied(str(error))
        case ContextTooLarge():
            return TooLarge(str(error))
        case InvalidContext() | InvalidOption():
            return exceptions.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: [str(error)]})
        case QueueUnavailable() | ActivityLocked():
            return Unavailable(str(error))
    if is_outage(error):
        # The text of the driver names hosts and users; it is for the log.
        logger.error("A request failed, since the database is unavailable: %s", error, exc_info=error)
        return Unavailable()
    return error


def invalid(error: pydantic.ValidationError) -> exceptions.APIException:
    """Return Pydantic's errors in REST framework's shape: nested by field, list items by their index.

    What belongs to no single field, such as a model's own validator, comes under `non_field_errors`. Values
    are not repeated: they may be secrets.
    """
    shape: dict[str, Any] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        if one["type"] == "json_invalid":
            return exceptions.ParseError(f"JSON parse error - {one['msg'].removeprefix('Invalid JSON: ')}")
        message = exceptions.ErrorDetail(one["msg"].removeprefix("Value error, "), code=one["type"])
        _messages_at(shape, [str(part) for part in one["loc"]]).append(message)
    return exceptions.ValidationError(shape)


def _messages_at(shape: dict[str, Any], place: Iterable[str]) -> list[exceptions.ErrorDetail]:
    """Return the list of messages at `place`; a place with messages of its own can still hold others inside."""
    *outer, last = [*place] or [api_settings.NON_FIELD_ERRORS_KEY]
    inside = shape
    for name in outer:
        known = inside.setdefault(name, {})
        if isinstance(known, list):
            known = inside[name] = {api_settings.NON_FIELD_ERRORS_KEY: known}
        inside = known
    messages = inside.setdefault(last, [])
    if isinstance(messages, dict):
        messages = messages.setdefault(api_settings.NON_FIELD_ERRORS_KEY, [])
    found: list[exceptions.ErrorDetail] = messages
    return found
