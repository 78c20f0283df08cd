"""Errors of the API as exceptions of REST framework, and the conversion of package and Pydantic errors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pydantic
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import exceptions, status
from rest_framework.settings import api_settings

from ..exceptions import (
    ActivityLocked,
    ActivityNotFound,
    ApprovalNotFound,
    ApprovalVoid,
    ContextTooLarge,
    InvalidContext,
    InvalidOption,
    NotAuthorized,
    QueueUnavailable,
    UnknownTask,
)
from ..outages import is_outage
from ..tasks.context_input import field_problems

logger = logging.getLogger(__name__)

RETRY_AFTER = 1  # seconds; a short activity has ended by then
UNAVAILABLE_RETRY_AFTER = 5  # seconds; a failover takes about that long


class Conflict(exceptions.APIException):
    """409: the status of the activity does not allow the request."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"

    def __init__(self, detail: str, reason: str, activity_status: str, *, retry_after: int | None = None) -> None:
        super().__init__({"detail": detail, "reason": reason, "status": activity_status})
        self.wait = retry_after  # REST framework sends it as the Retry-After header


class Gone(exceptions.APIException):
    """410: the activity has been pruned, or an approval is void."""

    status_code = status.HTTP_410_GONE
    default_code = "gone"


class OtherDecision(exceptions.APIException):
    """409: another decision about the approval was made before."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "already_decided"

    def __init__(self, detail: str, approval: Mapping[str, Any]) -> None:
        super().__init__({"detail": detail})
        # Set here, since REST framework turns each value of a detail into a text.
        self.detail = cast("Any", {"detail": detail, "approval": approval})


class TooLarge(exceptions.APIException):
    """413: the body exceeds the limit of the settings."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class Unprocessable(exceptions.APIException):
    """422: well-formed, but impossible for this activity."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "unprocessable"


class KeyReused(Unprocessable):
    """422: the idempotency key was used with a different request."""

    default_code = "idempotency_key_reused"
    default_detail = gettext_lazy(
        "This Idempotency-Key was used with a different request. Use a new key for a new request."
    )


class NeedsAsgi(exceptions.APIException):
    """501: the view needs an ASGI server."""

    status_code = status.HTTP_501_NOT_IMPLEMENTED
    default_code = "needs_asgi"
    default_detail = gettext_lazy(
        "Events need an ASGI server, but this is a WSGI server. Poll the activity with ?wait= and ?after= instead."
    )


class Unavailable(exceptions.APIException):
    """503: a server that the request needs is unavailable. Sends a Retry-After header."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"
    default_detail = gettext_lazy("The database is unavailable or does not accept changes. Try again later.")
    wait = UNAVAILABLE_RETRY_AFTER  # REST framework sends it as the header


def as_api_exception(error: Exception) -> Exception:
    """Return the API exception for an exception of the package or of the database; any other `error` itself."""
    match error:
        case ActivityNotFound():
            return exceptions.NotFound(_("There is no activity %(agent_id)s.") % {"agent_id": error.agent_id})
        case ApprovalNotFound():
            return exceptions.NotFound(_("There is no approval %(id)s.") % {"id": error.id})
        case ApprovalVoid():
            return Gone(_("The activity no longer waits for this decision: it was canceled, has ended or runs again."))
        case UnknownTask():
            return exceptions.NotFound()
        case NotAuthorized():
            return exceptions.PermissionDenied(str(error))
        case ContextTooLarge():
            return TooLarge(str(error))
        case InvalidContext() | InvalidOption():
            return exceptions.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: [str(error)]})
        case QueueUnavailable() | ActivityLocked():
            return Unavailable(str(error))
    if is_outage(error):
        # The driver's text contains hosts and users: it is logged, not sent.
        logger.error("A request failed, since the database is unavailable: %s", error, exc_info=error)
        return Unavailable()
    return error


def validation_error(error: pydantic.ValidationError) -> exceptions.APIException:
    """Return Pydantic's errors in the shape of REST framework: nested by field, list items by their index.

    Errors of a whole model are listed under `non_field_errors`. Rejected values are left out, since they may be
    secrets.
    """
    details: dict[str, Any] = {}
    for problem in field_problems(error):
        if problem.code == "json_invalid":
            message = problem.message.removeprefix("Invalid JSON: ")
            return exceptions.ParseError(_("JSON parse error - %(message)s") % {"message": message})
        detail = exceptions.ErrorDetail(problem.message, code=problem.code)
        _details_at(details, [str(part) for part in problem.location]).append(detail)
    return exceptions.ValidationError(details)


def invalid_parameter(name: str, message: str) -> exceptions.ValidationError:
    """Return the error of one query parameter or header."""
    return exceptions.ValidationError({name: [message]})


def _details_at(details: dict[str, Any], location: Iterable[str]) -> list[exceptions.ErrorDetail]:
    """Return the list of errors at a location. A field with errors may have fields with errors inside."""
    *outer, last = [*location] or [api_settings.NON_FIELD_ERRORS_KEY]
    inside = details
    for name in outer:
        known = inside.setdefault(name, {})
        if isinstance(known, list):
            known = inside[name] = {api_settings.NON_FIELD_ERRORS_KEY: known}
        inside = known
    found = inside.setdefault(last, [])
    if isinstance(found, dict):
        found = found.setdefault(api_settings.NON_FIELD_ERRORS_KEY, [])
    errors: list[exceptions.ErrorDetail] = found
    return errors
