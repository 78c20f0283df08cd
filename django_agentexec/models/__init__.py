"""The database tables.

`django_agentexec.activity` is the only writer of activities; every other part reads them through `ActivityQuerySet`.
"""

from __future__ import annotations

from ..choices import (
    ACTIVE,
    DECISIONS,
    FAILED_OR_CANCELED,
    FINISHED,
    ApprovalKind,
    ApprovalScope,
    ApprovalStatus,
    CallKind,
    CallState,
    HookFlag,
    LineType,
    OnExpiry,
    Priority,
    Status,
    StepState,
    WaitingFor,
)
from ..querysets import ActivityQuerySet
from .activities import Activity, ActivityLog
from .approvals import Approval, ApprovalQuerySet
from .calls import AgentCall, CallQuerySet
from .conversations import Conversation, ConversationItem, ConversationQuerySet, ConversationTurn
from .prices import ModelPrice
from .steps import StepRun
from .tool_results import ToolResult
from .trackers import TrackerMember, TrackerState

__all__ = [
    "ACTIVE",
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
    "CallKind",
    "CallQuerySet",
    "CallState",
    "Conversation",
    "ConversationItem",
    "ConversationQuerySet",
    "ConversationTurn",
    "HookFlag",
    "LineType",
    "ModelPrice",
    "OnExpiry",
    "Priority",
    "Status",
    "StepRun",
    "StepState",
    "ToolResult",
    "TrackerMember",
    "TrackerState",
    "WaitingFor",
]
