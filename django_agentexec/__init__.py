"""django-agentexec: run AI agents in Django, in the background.

The public names, loaded on first use: importing this package loads neither models nor the agents SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import activity
    from .backoff import Backoff
    from .exceptions import (
        ActivityNotFound,
        AgentExecError,
        InvalidContext,
        InvalidTransition,
        NotAuthorized,
        PipelineChanged,
        SpawnMismatch,
        StaleAttempt,
        TaskCanceled,
        TaskFailed,
        UnknownTask,
        UserFacingError,
    )
    from .models import Priority, Status
    from .pipelines import Pipeline, achain, achord, agroup, chain, chord, group, mermaid, step
    from .results import agather, aget_result, gather, get_result
    from .runners.base import BaseAgentRunner
    from .runners.openai import OpenAIRunner
    from .tasks import ActivityHandle, Attempt, TaskDefinition, aenqueue, aenqueue_many, enqueue, enqueue_many, task
    from .tracker import Tracker

__version__ = "0.1.0"

_HOMES = {
    "activity": ["activity"],
    "backoff": ["Backoff"],
    "exceptions": [
        "ActivityNotFound",
        "AgentExecError",
        "InvalidContext",
        "InvalidTransition",
        "NotAuthorized",
        "PipelineChanged",
        "SpawnMismatch",
        "StaleAttempt",
        "TaskCanceled",
        "TaskFailed",
        "UnknownTask",
        "UserFacingError",
    ],
    "models": ["Priority", "Status"],
    "pipelines": ["Pipeline", "achain", "achord", "agroup", "chain", "chord", "group", "mermaid", "step"],
    "results": ["agather", "aget_result", "gather", "get_result"],
    "runners.base": ["BaseAgentRunner"],
    "runners.openai": ["OpenAIRunner"],
    "tasks": [
        "ActivityHandle",
        "Attempt",
        "TaskDefinition",
        "aenqueue",
        "aenqueue_many",
        "enqueue",
        "enqueue_many",
        "task",
    ],
    "tracker": ["Tracker"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ActivityHandle",
    "ActivityNotFound",
    "AgentExecError",
    "Attempt",
    "Backoff",
    "BaseAgentRunner",
    "InvalidContext",
    "InvalidTransition",
    "NotAuthorized",
    "OpenAIRunner",
    "Pipeline",
    "PipelineChanged",
    "Priority",
    "SpawnMismatch",
    "StaleAttempt",
    "Status",
    "TaskCanceled",
    "TaskDefinition",
    "TaskFailed",
    "Tracker",
    "UnknownTask",
    "UserFacingError",
    "achain",
    "achord",
    "activity",
    "aenqueue",
    "aenqueue_many",
    "agather",
    "aget_result",
    "agroup",
    "chain",
    "chord",
    "enqueue",
    "enqueue_many",
    "gather",
    "get_result",
    "group",
    "mermaid",
    "step",
    "task",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{home}", __name__)
    return module if name == home else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
