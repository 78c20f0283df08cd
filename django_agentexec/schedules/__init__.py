"""Schedules: tasks that are enqueued at given times. A separate Django app, `django_agentexec.schedules`.

The public names are loaded on first use, because Django imports this package before models can be imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .declarations import Solar, add_schedule, schedule

__all__ = ["Solar", "add_schedule", "schedule"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".declarations", __name__), name)
