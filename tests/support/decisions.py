"""Decisions about approvals, made directly in the database."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from django_agentexec.children.propagation import resume_parents
from django_agentexec.models import Approval, ApprovalStatus


def decide(
    approval: Approval | None = None, status: ApprovalStatus = ApprovalStatus.APPROVED, **values: Any
) -> Approval:
    """Decide an approval (by default the only pending one), and resume its activity."""
    approval = approval or Approval.objects.pending().get()
    undecided = Approval.objects.filter(pk=approval.pk, status=ApprovalStatus.PENDING)
    assert undecided.update(status=status, decided_at=timezone.now(), **values) == 1
    resume_parents([approval.activity_id])
    return approval
