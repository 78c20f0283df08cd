"""Background execution of AI agents in Django.

The public names are loaded on first use: neither importing nor inspecting this package loads models or the agents SDK.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .deprecation import warn_deprecated

if TYPE_CHECKING:
    from . import activity, approvals, concurrency
    from .backoff import Backoff
    from .budgets.options import RunBudget
    from .calls.position import tool_key
    from .children.canvas import achain, achord, agroup, chain, chord, group
    from .children.tracker import Tracker
    from .conversations.session import DjangoSession
    from .exceptions import (
        ActivityLocked,
        ActivityNotFound,
        AgentExecError,
        AlreadyDecided,
        ApprovalNotFound,
        ApprovalVoid,
        BudgetExceeded,
        ContextTooLarge,
        EmbeddedServerError,
        InvalidContext,
        InvalidOption,
        InvalidTransition,
        ModelsUnavailable,
        NotAuthorized,
        PipelineChanged,
        QueueMisconfigured,
        QueueUnavailable,
        ResultError,
        ResultTimeout,
        ScheduleError,
        SpawnMismatch,
        StaleAttempt,
        TaskCanceled,
        TaskDefinitionError,
        TaskFailed,
        UnhandledInterruption,
        UnknownTask,
        UserFacingError,
    )
    from .models import Priority, Status
    from .pipelines import Pipeline, amermaid, mermaid, step
    from .resilience.idempotency import idempotent_tool
    from .results import agather, aget_result, gather, get_result
    from .runners.base import BaseAgentRunner
    from .runners.openai import ModelCache, ModelCandidate, OpenAIRunner, ResilientModel
    from .signals import (
        activities_changed,
        activity_changed,
        activity_ended,
        approval_decided,
        approval_requested,
        budget_threshold,
    )
    from .tasks import (
        ActivityHandle,
        Attempt,
        EnqueueOptions,
        Run,
        Task,
        TaskDefinition,
        aenqueue,
        aenqueue_many,
        enqueue,
        enqueue_many,
        task,
    )

    __all__ = [
        "ActivityHandle",
        "ActivityLocked",
        "ActivityNotFound",
        "AgentExecError",
        "AlreadyDecided",
        "ApprovalNotFound",
        "ApprovalVoid",
        "Attempt",
        "Backoff",
        "BaseAgentRunner",
        "BudgetExceeded",
        "ContextTooLarge",
        "DjangoSession",
        "EmbeddedServerError",
        "EnqueueOptions",
        "InvalidContext",
        "InvalidOption",
        "InvalidTransition",
        "ModelCache",
        "ModelCandidate",
        "ModelsUnavailable",
        "NotAuthorized",
        "OpenAIRunner",
        "Pipeline",
        "PipelineChanged",
        "Priority",
        "QueueMisconfigured",
        "QueueUnavailable",
        "ResilientModel",
        "ResultError",
        "ResultTimeout",
        "Run",
        "RunBudget",
        "ScheduleError",
        "SpawnMismatch",
        "StaleAttempt",
        "Status",
        "Task",
        "TaskCanceled",
        "TaskDefinition",
        "TaskDefinitionError",
        "TaskFailed",
        "Tracker",
        "UnhandledInterruption",
        "UnknownTask",
        "UserFacingError",
        "achain",
        "achord",
        "activities_changed",
        "activity",
        "activity_changed",
        "activity_ended",
        "aenqueue",
        "aenqueue_many",
        "agather",
        "aget_result",
        "agroup",
        "amermaid",
        "approval_decided",
        "approval_requested",
        "approvals",
        "budget_threshold",
        "chain",
        "chord",
        "concurrency",
        "enqueue",
        "enqueue_many",
        "gather",
        "get_result",
        "group",
        "idempotent_tool",
        "mermaid",
        "step",
        "task",
        "tool_key",
    ]

__version__ = "0.2.0"

_HOMES = {
    "activity": ["activity"],
    "approvals": ["approvals"],
    "backoff": ["Backoff"],
    "budgets.options": ["RunBudget"],
    "calls.position": ["tool_key"],
    "concurrency": ["concurrency"],
    "conversations.session": ["DjangoSession"],
    "exceptions": [
        "ActivityLocked",
        "ActivityNotFound",
        "AgentExecError",
        "AlreadyDecided",
        "ApprovalNotFound",
        "ApprovalVoid",
        "BudgetExceeded",
        "ContextTooLarge",
        "EmbeddedServerError",
        "InvalidContext",
        "InvalidOption",
        "InvalidTransition",
        "ModelsUnavailable",
        "NotAuthorized",
        "PipelineChanged",
        "QueueMisconfigured",
        "QueueUnavailable",
        "ResultError",
        "ResultTimeout",
        "ScheduleError",
        "SpawnMismatch",
        "StaleAttempt",
        "TaskCanceled",
        "TaskDefinitionError",
        "TaskFailed",
        "UnhandledInterruption",
        "UnknownTask",
        "UserFacingError",
    ],
    "models": ["Priority", "Status"],
    "children.canvas": ["achain", "achord", "agroup", "chain", "chord", "group"],
    "pipelines": ["Pipeline", "amermaid", "mermaid", "step"],
    "results": ["agather", "aget_result", "gather", "get_result"],
    "runners.base": ["BaseAgentRunner"],
    "resilience.idempotency": ["idempotent_tool"],
    "runners.openai": ["ModelCache", "ModelCandidate", "OpenAIRunner", "ResilientModel"],
    "signals": [
        "activities_changed",
        "activity_changed",
        "activity_ended",
        "approval_decided",
        "approval_requested",
        "budget_threshold",
    ],
    "tasks": [
        "Attempt",
        "EnqueueOptions",
        "Run",
        "Task",
        "aenqueue",
        "aenqueue_many",
        "enqueue",
        "enqueue_many",
        "task",
    ],
    "children.tracker": ["Tracker"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_DEPRECATED = {"ActivityHandle": "Run", "TaskDefinition": "Task"}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return _loaded()
    if name in _DEPRECATED:
        warn_deprecated(__name__, name, _DEPRECATED[name])
        name = _DEPRECATED[name]
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{home}", __name__)
    return module if name == home else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_loaded()})


def _loaded() -> list[str]:
    """Return the public names whose modules are loaded.

    `dir`, `import *`, `inspect.getmembers`, autospecs and freezegun read each of these names. A name that is not
    loaded would import its module at that moment: the agents SDK under a frozen clock, or an extra that is missing.
    """
    loaded = {name: sys.modules.get(f"{__name__}.{home}") for name, home in _HOME_OF.items()}
    return [name for name, module in loaded.items() if module and (name == _HOME_OF[name] or name in vars(module))]
