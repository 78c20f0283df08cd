"""Deprecated alias of `django_agentexec.live`; removed in 0.4."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

_NAMES = ("Follower", "follow_activity", "follow_feed")


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"django_agentexec.events.{name} is deprecated; import it from django_agentexec.live.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module("django_agentexec.live"), name)
