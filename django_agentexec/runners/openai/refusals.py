"""Refusals by a provider: how long it accepts no calls, by its error."""

from __future__ import annotations

from agents.models._retry_runtime import get_error_code, get_error_header, get_retry_after, get_status_code

from django_agentexec.limits.refusals import EXHAUSTED, KINDS, TOO_MANY_REQUESTS, parse_reset

FIRST_WAIT, MAX_WAIT = 1.0, 60.0  # seconds, if the provider names no time; doubled after each refusal


def refused_for(error: Exception, refusals: int) -> float | None:
    """Return the seconds for which a provider accepts no calls after this error, or None if it is no such refusal.

    `refusals` is the number of earlier refusals of the call. By the headers `Retry-After` and `Retry-After-Ms`, or
    `x-ratelimit-reset-requests` and `x-ratelimit-reset-tokens`; otherwise an increasing number.
    """
    if get_status_code(error) != TOO_MANY_REQUESTS or get_error_code(error) in EXHAUSTED:
        return None
    seconds = get_retry_after(error)
    if seconds is None:
        seconds = _reset(error)
    return min(MAX_WAIT, FIRST_WAIT * 2.0**refusals) if seconds is None else seconds


def _reset(error: Exception) -> float | None:
    """Return the time until the limits are reset that are used up; if the provider names none of them, of all."""
    resets = {kind: parse_reset(get_error_header(error, f"x-ratelimit-reset-{kind}")) for kind in KINDS}
    known = {kind: seconds for kind, seconds in resets.items() if seconds is not None}
    used_up = [kind for kind in known if get_error_header(error, f"x-ratelimit-remaining-{kind}") == "0"]
    return max((known[kind] for kind in used_up or known), default=None)
