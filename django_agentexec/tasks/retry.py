"""The retry decision: whether an error is worth another try, and how long to wait for it.

Tasks and the steps of pipelines ask here. By default everything is retried except errors that a repetition cannot fix:
programming errors, a wrong configuration, and answers of a model or provider that would be the same again. Providers'
exceptions are recognized by their attributes (`status_code`, `code`, `body`, `response.headers`) and by their names,
so no client library is imported.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..backoff import Backoff, Delay, headers_of, retry_after
from ..exceptions import (
    BudgetExceeded,
    InvalidContext,
    InvalidOption,
    PipelineChanged,
    ResultError,
    SpawnMismatch,
    StaleAttempt,
    TaskCanceled,
    TaskFailed,
    UnhandledInterruption,
)

logger = logging.getLogger(__name__)

MAX_DELAY = 30 * 86_400.0  # seconds; a backoff that returns more is taken for a mistake

ALWAYS_FINAL = (
    *(ResultError, StaleAttempt, SpawnMismatch, PipelineChanged, TaskCanceled, UnhandledInterruption),
    BudgetExceeded,
)
"""The package's own errors that no option makes retryable."""

PROGRAMMING_ERRORS = (
    *(ImproperlyConfigured, TypeError, NameError, AttributeError, ImportError, NotImplementedError),
    *(InvalidContext, InvalidOption),  # of a child, for example
)
"""Fixed by a deploy, not by a repetition."""

TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
"""The 4xx that may pass: request timeout, conflict, too early, too many requests (RFC 9110, 8470, 6585)."""

FINAL_CODES = frozenset(
    {
        *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"),
        *("context_length_exceeded", "string_above_max_length", "request_too_large"),
        *("invalid_api_key", "authentication_error", "permission_error", "account_deactivated"),
        *("model_not_found", "content_filter", "content_policy_violation"),
    }
)
"""Codes and types of providers' permanent errors, whatever their HTTP status."""

FINAL_NAMES = frozenset(
    {
        *(
            f"agents.exceptions.{name}"
            for name in (
                "InputGuardrailTripwireTriggered",
                "MaxTurnsExceeded",
                "ModelBehaviorError",
                "ModelRefusalError",
                "OutputGuardrailTripwireTriggered",
                "ToolInputGuardrailTripwireTriggered",
                "ToolOutputGuardrailTripwireTriggered",
                "UserError",
            )
        ),
        *("openai.LengthFinishReasonError", "openai.ContentFilterFinishReasonError"),
        *(f"pydantic_ai.exceptions.{name}" for name in ("UserError", "UnexpectedModelBehavior", "UsageLimitExceeded")),
    }
)
"""Errors of agent frameworks, by qualified name: unknown tools, invalid JSON, refusals, tripwires, spent turns."""

AUTHENTICATION_NAMES = frozenset({"AuthenticationError", "PermissionDeniedError"})
"""Names of exceptions that several clients share (openai, anthropic, litellm, redis)."""

MISSING_KEY = "openai.OpenAIError"
"""Raised as itself, not as a subclass, by a client that is built without a key."""

WRAPPERS = frozenset({"agents.exceptions.UserError", "django_agentexec.exceptions.ModelsUnavailable"})
"""Raised around the error of a tool or of the last model, which then decides."""

STREAM_FAILURE = "Responses stream ended with terminal event"
"""How the agents SDK begins the `ModelBehaviorError` of a stream that the server ended with an error."""


@dataclass(frozen=True)
class RetryPolicy:
    """The options of a task that decide about retries.

    `retry_on`: the errors that are retried, or None for the default (`is_transient`). `give_up_on` takes
    precedence.
    """

    backoff: Delay
    retry_on: tuple[type[BaseException], ...] | None = None
    give_up_on: tuple[type[BaseException], ...] = ()

    def is_retryable(self, error: BaseException) -> bool:
        """Return whether the error is worth another try."""
        if self._is_final(error):
            return False
        if not isinstance(error, Exception):
            return True  # an exit or a cancellation of the handler's own making, which says nothing about the next try
        if self.retry_on is not None:
            return any(isinstance(each, self.retry_on) for each in unwrapped(error))
        return is_transient(error)

    def _is_final(self, error: BaseException) -> bool:
        """Return whether no option makes the error retryable; a group of errors is final if one of its members is."""
        if isinstance(error, BaseExceptionGroup):
            return any(self._is_final(each) for each in error.exceptions)
        return any(
            isinstance(each, (*ALWAYS_FINAL, *self.give_up_on)) or (isinstance(each, TaskFailed) and each.is_final)
            for each in unwrapped(error)
        )

    def delay(self, error: BaseException, retry: int, backoff: Delay | None = None) -> float | None:
        """Return the seconds to wait before retry number `retry` (from 1), or None to give up.

        At least as long as a provider asks for. `backoff` replaces the policy's own.
        """
        if not self.is_retryable(error):
            return None
        asked = max((retry_after(each) or 0.0 for each in unwrapped(error)), default=0.0)
        return max(bounded_delay(backoff or self.backoff, error, retry), asked)


def is_transient(error: BaseException) -> bool:
    """Return whether the error may be gone at the next try; True unless it is known to be permanent.

    A group of errors is transient if each of its members is.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(each) for each in error.exceptions)
    *_, error = unwrapped(error)
    asked = str(headers_of(error).get("x-should-retry", "")).strip().lower()
    if asked in ("true", "false"):
        return asked == "true"
    if codes_of(error) & FINAL_CODES:
        return False
    status = status_of(error)
    if status is not None:
        return not 400 <= status < 500 or status in TRANSIENT_STATUSES
    return not isinstance(error, PROGRAMMING_ERRORS) and not _is_final_by_name(error)


def unwrapped(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then what it was raised around if it only carries another error."""
    yield error
    while _name(type(error)) in WRAPPERS and isinstance(error.__cause__, Exception):
        error = error.__cause__
        yield error


def bounded_delay(backoff: Delay, error: BaseException, retry: int) -> float:
    """Return the delay of a backoff within bounds; the default's if it fails, since the activity must continue."""
    try:
        delay = float(backoff(retry, error))
    except Exception:
        logger.exception("The backoff %r failed; the default backoff is used.", backoff)
        return Backoff()(retry, error)
    return 0.0 if math.isnan(delay) else min(max(0.0, delay), MAX_DELAY)


def _is_final_by_name(error: BaseException) -> bool:
    names = {_name(kind) for kind in type(error).__mro__}
    if "agents.exceptions.ModelBehaviorError" in names and str(error).startswith(STREAM_FAILURE):
        # The server's failure, not the model's. An incomplete answer was cut at a limit and would be again.
        text = str(error)
        return "response.incomplete" in text or any(code in text for code in FINAL_CODES)
    short_names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & FINAL_NAMES or short_names & AUTHENTICATION_NAMES) or _name(type(error)) == MISSING_KEY


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that the error or its response carries, or None."""
    response = _attribute(error, "response")
    found = [_attribute(each, name) for each in (error, response) for name in ("status_code", "status")]
    if response is not None or _attribute(error, "headers") is not None:
        found.append(_attribute(error, "code"))  # urllib, google-genai
    return next((int(each) for each in found if _is_status(each)), None)


def _is_status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600


def codes_of(error: BaseException) -> set[str]:
    """Return what the provider calls the error, in its attributes and in the body of its response."""
    found = [_attribute(error, "code"), _attribute(error, "type")]
    body = _attribute(error, "body")
    if isinstance(body, Mapping):
        inner = body.get("error")
        for each in (body, inner if isinstance(inner, Mapping) else {}):
            found += [each.get("code"), each.get("type")]
    return {each for each in found if isinstance(each, str)}


def _attribute(value: object, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001  # a property may raise anything, as httpx's do
        return None
