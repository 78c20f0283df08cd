"""Decisions of people: approve or reject the tool calls of agents, and answer their questions.

from django_agentexec import approvals
approvals.approve(approval.id, by=request.user)
"""

from __future__ import annotations

from .assignment import aassign, assign
from .commands import aanswer, aapprove, answer, approve, areject, reject

__all__ = ["aanswer", "aapprove", "aassign", "answer", "approve", "areject", "assign", "reject"]
