"""The database tables.

`django_agentexec.activity` is the only writer of activities; every other part reads them through `ActivityQuerySet`.
"""

from __future__ import annotations

from ..choices import (
    ACTIVE,
    BUDGET_THRESHOLDS,
    CONDITIONS,
    DECISIONS,
    FAILED_OR_CANCELED,
    FINISHED,
    ApprovalKind,
    ApprovalScope,
    ApprovalStatus,
    BudgetAction,
    BudgetPeriod,
    BudgetScope,
    BudgetUnit,
    CallKind,
    CallState,
    HookFlag,
    LimitScope,
    LineType,
    OnExpiry,
    PauseScope,
    Priority,
    Status,
    StepState,
    WaitingFor,
)
from ..querysets import ActivityQuerySet
from .activities import Activity, ActivityLog
from .approvals import Approval, ApprovalQuerySet
from .budgets import Budget, BudgetLedger, BudgetReservation, BudgetWait
from .calls import AgentCall, CallQuerySet
from .concurrency import ConcurrencyLimit, Pause
from .conversations import Conversation, ConversationItem, ConversationQuerySet, ConversationTurn
from .prices import ModelPrice
from .steps import StepRun
from .tool_results import ToolResult
from .trackers import TrackerMember, TrackerState

__all__ = [
    "ACTIVE",
    "BUDGET_THRESHOLDS",
    "CONDITIONS",
    "DECISIONS",
    "FAILED_OR_CANCELED",
    "FINISHED",
    "Activity",
    "ActivityLog",
    "ActivityQuerySet",
    "AgentCall",
    "Approval",
    "ApprovalKind",
    "ApprovalQuerySet",
    "ApprovalScope",
    "ApprovalStatus",
    "Budget",
    "BudgetAction",
    "BudgetLedger",
    "BudgetPeriod",
    "BudgetReservation",
    "BudgetScope",
    "BudgetUnit",
    "BudgetWait",
    "CallKind",
    "CallQuerySet",
    "CallState",
    "ConcurrencyLimit",
    "Conversation",
    "ConversationItem",
    "ConversationQuerySet",
    "ConversationTurn",
    "HookFlag",
    "LimitScope",
    "LineType",
    "ModelPrice",
    "OnExpiry",
    "Pause",
    "PauseScope",
    "Priority",
    "Status",
    "StepRun",
    "StepState",
    "ToolResult",
    "TrackerMember",
    "TrackerState",
    "WaitingFor",
]
