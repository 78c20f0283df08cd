"""What answers of providers report about limits: how long a refused call waits, and whether a limit is used up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..parsing import parse_digits

TOO_MANY_REQUESTS = 429
EXHAUSTED = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of refusals that no wait ends."""
KINDS = ("requests", "tokens")
DEFAULT_WAIT = 1.0  # seconds, if the provider names no time
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd]?)")
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def parse_reset(text: object) -> float | None:
    """Return the seconds of a duration such as `6m0s`, `120ms` or `1.5`; None for anything else."""
    parts = _PARTS.findall(text) if isinstance(text, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def used_up_for(headers: Mapping[str, str], tokens: int) -> float | None:
    """Return the seconds until another call with that many tokens fits, if an answer says that a limit is used up.

    By `x-ratelimit-remaining-*`, `x-ratelimit-reset-*` (until the limit is unused again) and `x-ratelimit-limit-*`, for
    requests and tokens. Providers return the capacity steadily; if they do not name the limit, the call waits until it
    is unused.
    """
    found = []
    for kind, needed in zip(KINDS, (1, max(1, tokens)), strict=True):
        reset = parse_reset(headers.get(f"x-ratelimit-reset-{kind}"))
        if headers.get(f"x-ratelimit-remaining-{kind}") != "0" or reset is None:
            continue
        limit = parse_digits(headers.get(f"x-ratelimit-limit-{kind}", ""))
        found.append(reset * min(1.0, needed / limit) if limit else reset)
    return max(found, default=None)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error of a provider's client, also of the error that has caused it."""
    found = _with_status(error)
    return None if found is None else found.status_code


def refused_for(error: BaseException) -> float | None:
    """Return the seconds for which a provider accepts no calls after an error of any client, or None.

    By the header `Retry-After` of the response that the error, or the error that has caused it, has.
    """
    found = _with_status(error)
    if found is None or found.status_code != TOO_MANY_REQUESTS or _code_of(found) in EXHAUSTED:
        return None
    for each in (error, error.__cause__):
        headers: Any = getattr(getattr(each, "response", None), "headers", None)
        if isinstance(headers, Mapping) and (seconds := parse_reset(headers.get("retry-after"))) is not None:
            return seconds
    return DEFAULT_WAIT


def _with_status(error: BaseException) -> Any:
    for each in (error, error.__cause__):
        if isinstance(getattr(each, "status_code", None), int):
            return each
    return None


def _code_of(error: Any) -> str:
    """Return the code in the body of a refusal, or of its error; "" for none, and for what is no text."""
    body = getattr(error, "body", None)
    code = None
    if isinstance(body, Mapping):
        inner = body.get("error")
        code = (inner if isinstance(inner, Mapping) else body).get("code")
    code = code or getattr(error, "code", None)
    return code if isinstance(code, str) else ""
