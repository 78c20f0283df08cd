"""The options of circuit breakers, from the setting `MODEL_BREAKER`, and the checks of these settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from ..conf import Settings, conf
from ..parsing import as_seconds
from ..queues.breakers import BreakerOptions

DEFAULTS: Mapping[str, Any] = Settings.MODEL_BREAKER.default
"""The values of keys that the setting leaves out."""
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "failures": (0, 10_000),
    "window": (0.1, 86_400.0),
    "open": (0.1, 86_400.0),
    "rate": (0.0, 1.0),
}
_DURATIONS = ("window", "open")
_EXPECTED = {"failures": "a whole number", **dict.fromkeys(_DURATIONS, "seconds, or a timedelta,")}


def breaker_options() -> BreakerOptions:
    """Return the options of all breakers. Raises `ImproperlyConfigured` for an invalid setting."""
    given = conf.MODEL_BREAKER
    for key, value in given.items():
        if key not in _BOUNDS:
            known = ", ".join(repr(name) for name in _BOUNDS)
            raise ImproperlyConfigured(f"AGENTEXEC['MODEL_BREAKER'] has the key {key!r}, but its keys are {known}.")
        low, high = _BOUNDS[key]
        kind = int if key == "failures" else (int, float)
        number = as_seconds(value) if key in _DURATIONS else value
        is_number = isinstance(number, kind) and not isinstance(number, bool) and math.isfinite(number)
        if not is_number or not low <= number <= high:
            expected = _EXPECTED.get(key, "a number")
            raise ImproperlyConfigured(
                f"AGENTEXEC['MODEL_BREAKER'][{key!r}] is {value!r}, but must be {expected} from {low:g} to {high:g}."
            )
    values = {**DEFAULTS, **given}
    return BreakerOptions(
        failures=int(values["failures"]),
        window=as_seconds(values["window"]),
        open=as_seconds(values["open"]),
        rate=float(values["rate"]),
    )


def check_breaker(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse options of circuit breakers that would fail at the first call of a model."""
    try:
        given = conf.MODEL_BREAKER
    except ImproperlyConfigured:
        return []  # reported by `check_settings`
    try:
        breaker_options()
    except ImproperlyConfigured as error:
        return [
            Error(
                str(error),
                hint=f"Write {dict(DEFAULTS)}, or leave out what you do not change; {{'failures': 0}} turns it off."
                if given
                else None,
                id="agentexec.E034",
            )
        ]
    return []


def check_cache(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a cache of answers that does not exist, which would fail at the first call of a model."""
    try:
        alias = conf.MODEL_CACHE
    except ImproperlyConfigured:
        return []  # reported by `check_settings`
    if alias in settings.CACHES:
        return []
    text = f"AGENTEXEC['MODEL_CACHE'] is {alias!r}, which CACHES does not contain."
    known = ", ".join(map(repr, settings.CACHES))
    return [Error(text, hint=f"CACHES contains {known}.", id="agentexec.E035")]


def install() -> None:
    """Register the checks; called when the app is ready."""
    register(check_breaker, "agentexec")
    register(check_cache, "agentexec")
