"""The difference between an outage of a model, after which another model may answer, and an error of the request.

Errors of clients are recognized as in `tasks.retry`: by their attributes and names, so no client library is imported.
"""

from __future__ import annotations

from typing import Any

from django_agentexec.tasks.retry import codes_of, status_of

OUTAGE_STATUSES = frozenset({402, 408, 425, 429})
"""Of the 4xx: no credit left, request timeout, too early, too many requests or an exhausted quota."""
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"})
"""Codes for an account without credit, whatever the HTTP status."""
OUTAGE_CODES = QUOTA_CODES | {
    *("rate_limit_exceeded", "rate_limit_error", "server_error", "overloaded_error", "vector_store_timeout"),
}
"""Codes of errors without an HTTP status, such as events of a stream, that another model does not share."""
REQUEST_CODES = frozenset(
    {
        *("context_length_exceeded", "string_above_max_length", "request_too_large", "invalid_prompt"),
        *("content_filter", "content_policy_violation", "invalid_request_error", "invalid_image"),
        *("invalid_api_key", "authentication_error", "permission_error", "model_not_found"),
    }
)
"""Codes for errors of the request or of the configuration, which a fallback would only hide."""
_CONNECTION_NAMES = frozenset({"APIConnectionError", "TransportError"})
"""Base classes of connection errors and timeouts: of openai, anthropic and litellm; of httpx."""
_API_ERROR = "APIError"  # of openai: an error event within a stream, which has no status
_CUT_OFF = "Chat Completions stream ended before receiving"  # the SDK's text for a stream without an end


class StreamFailed(RuntimeError):
    """A stream that its provider has ended with a failure, or that has ended without an answer."""

    def __init__(self, text: str, response: Any = None) -> None:
        super().__init__(text)
        self.usage = getattr(response, "usage", None)
        """The tokens that the provider has reported, in the form of the Responses API."""


def is_outage(error: BaseException) -> bool:
    """Return whether a model has failed for a reason that does not lie in the request."""
    if isinstance(error, (StreamFailed, OSError)):  # also TimeoutError and ConnectionError
        return True
    codes = codes_of(error)
    if codes & REQUEST_CODES:
        return False
    status = status_of(error)
    if status is not None:
        return status in OUTAGE_STATUSES or status >= 500 or bool(codes & QUOTA_CODES)
    names = {kind.__name__ for kind in type(error).__mro__}
    if codes & OUTAGE_CODES or names & _CONNECTION_NAMES or _API_ERROR in names:
        return True
    return str(error).startswith(_CUT_OFF)


def is_outage_event(event: Any) -> bool:
    """Return whether an event that ends a stream without an answer reports an outage."""
    if event.type == "response.incomplete":
        return False  # the answer was cut at a limit, and would be again
    error = getattr(getattr(event, "response", None), "error", None) or event
    code = getattr(error, "code", None)
    return code is None or code in OUTAGE_CODES


def reason_of(error: BaseException) -> str:
    """Return the type of an error, with its status, without the text: it may quote the request."""
    status = status_of(error)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}"
