"""The decision about an approval: written once, in one transaction with the resumption of its activity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import DatabaseError, transaction
from django.utils import timezone

from ..activity.store import apply, database
from ..activity.suspension import Resume
from ..activity.transitions import Fail, Operation
from ..bulk_sql import LockWait, lock_rows
from ..conf import conf
from ..current import acting_as, actor_name
from ..dispatch.push import push_on_commit, stop_on_commit
from ..exceptions import ActivityLocked, AlreadyDecided, ApprovalNotFound, ApprovalVoid, InvalidOption
from ..models import Activity, Approval, ApprovalKind, ApprovalScope, ApprovalStatus, OnExpiry, Status
from ..outages import Outage, classify_outage
from ..parsing import parse_id
from ..translation import gettext as _
from .arguments import check_arguments
from .log import LogDecision

EXPIRED_REASON = "Nobody has decided in time."
"""The reason of an expired approval, which the agent reads."""


@dataclass(frozen=True)
class Verdict:
    """A decision, as it is compared with an earlier one."""

    status: ApprovalStatus
    reason: str = ""
    scope: ApprovalScope = ApprovalScope.ONCE
    answer: Any = None
    is_answer: bool = False
    arguments: Mapping[str, Any] | None = None
    """Arguments in place of those of the request."""

    def check(self, approval: Approval) -> None:
        """Raise `InvalidOption` if the approval is of a kind that cannot be decided in this way."""
        kind = approval.kind
        if self.is_answer and kind == ApprovalKind.APPROVAL:
            raise InvalidOption(
                _("Approval %(id)s (%(tool)s) is not a question: approve or reject it.")
                % {"id": approval.id, "tool": approval.tool}
            )
        if kind == ApprovalKind.QUESTION and self.status == ApprovalStatus.APPROVED and not self.is_answer:
            raise InvalidOption(_("Approval %(id)s is a question: answer it, or reject it.") % {"id": approval.id})
        if self.scope == ApprovalScope.RUN and kind != ApprovalKind.APPROVAL:
            raise InvalidOption(
                _("Approval %(id)s concerns a single call; scope must be 'once'.") % {"id": approval.id}
            )
        if self.arguments is not None:
            check_arguments(approval, self.arguments, self.scope)
        if self.is_answer and approval.choices and self.answer not in approval.choices:
            choices = ", ".join(map(repr, approval.choices))
            raise InvalidOption(
                _("The answer %(answer)r is not one of the choices %(choices)s.")
                % {"answer": self.answer, "choices": choices}
            )

    def is_that_of(self, approval: Approval) -> bool:
        """Return whether the approval has this decision already. Reason and author are not compared."""
        decision = (approval.status, approval.scope, approval.answer, approval.changed_arguments)
        return decision == (self.status, self.scope, self.answer, self.changed_arguments(approval))

    def differs_in_arguments(self, approval: Approval) -> bool:
        """Return whether the approval has this decision already, but with other arguments."""
        changed = self.changed_arguments(approval)
        return approval.changed_arguments != changed and self.status == approval.status == ApprovalStatus.APPROVED

    def changed_arguments(self, approval: Approval) -> Mapping[str, Any] | None:
        """Return the arguments if they differ from those of the request."""
        return None if self.arguments == approval.arguments else self.arguments


def decide(id: UUID | str, verdict: Verdict) -> Approval:
    """Write a decision unless there is one, and resume the activity. Raises as `approve` does."""
    with transaction.atomic(using=database()):
        approval = locked(id)
        verdict.check(approval)
        now = timezone.now()
        if approval.is_pending:
            if not _is_due(approval, now):
                _write(approval, verdict, now)
                return approval
            with acting_as(None):  # the rule for expiry decides, and not the user who comes too late
                expire_locked(approval, now)
    if approval.status == ApprovalStatus.VOID:
        raise ApprovalVoid(approval)
    if not verdict.is_that_of(approval):
        raise AlreadyDecided(approval, differs_in_arguments=verdict.differs_in_arguments(approval))
    return approval


def expire(approval_id: UUID) -> bool:
    """Decide an approval by its rule for expiry; False if it has a decision or is not due."""
    with transaction.atomic(using=database()):
        approval, now = locked(approval_id), timezone.now()
        if not approval.is_pending or not _is_due(approval, now):
            return False
        expire_locked(approval, now)
    return True


def expire_locked(approval: Approval, now: datetime) -> None:
    """Write the outcome of an expired approval, whose activity the caller has locked."""
    is_approved = approval.on_expiry == OnExpiry.APPROVE
    verdict = Verdict(ApprovalStatus.EXPIRED, reason="" if is_approved else EXPIRED_REASON)
    if approval.on_expiry == OnExpiry.FAIL:
        _update([approval], verdict, now)
        error = f"{approval.tool} was not approved in time."
        if approval.kind == ApprovalKind.QUESTION:
            error = "A question was not answered in time."
        failure = Fail(agent_id=approval.activity_id, error=error, public_error=error)
        _apply([LogDecision(agent_id=approval.activity_id, approvals=[approval]), failure])
        return
    _write(approval, verdict, now)


def resume(agent_ids: Sequence[UUID]) -> None:
    """Queue suspended activities again that no longer wait for a decision."""
    with transaction.atomic(using=database()):
        _apply([Resume(agent_id=agent_id) for agent_id in agent_ids])


def _write(approval: Approval, verdict: Verdict, now: datetime) -> None:
    decided = [approval]
    if verdict.scope == ApprovalScope.RUN:
        decided += (
            Approval.objects.using(database())
            .filter(
                activity_id=approval.activity_id,
                tool=approval.tool,
                kind=ApprovalKind.APPROVAL,
                status=ApprovalStatus.PENDING,
            )
            .exclude(pk=approval.pk)
        )
    _update(decided, verdict, now)
    _apply([LogDecision(agent_id=approval.activity_id, approvals=decided), Resume(agent_id=approval.activity_id)])


def _update(approvals: Sequence[Approval], verdict: Verdict, now: datetime) -> None:
    """Write a decision of pending approvals. Raises `AlreadyDecided` where another writer was faster."""
    values = {
        "status": verdict.status,
        "scope": verdict.scope,
        "answer": verdict.answer,
        "changed_arguments": verdict.changed_arguments(approvals[0]),
        "reason": verdict.reason,
        "decided_by": actor_name() if verdict.status != ApprovalStatus.EXPIRED else None,
        "decided_at": now,
    }
    for approval in approvals:
        rows = Approval.objects.using(database()).filter(pk=approval.pk, status=ApprovalStatus.PENDING)
        if not rows.update(**values):  # the lock prevents this on databases with row locks
            approval.refresh_from_db(using=database())
            raise AlreadyDecided(approval)
        for name, value in values.items():
            setattr(approval, name, value)


def _apply(operations: Sequence[Operation]) -> None:
    changed = {row.agent_id: row for row in apply(operations) if isinstance(row, Activity)}
    resumed = [row for row in changed.values() if row.status == Status.QUEUED]
    ended = [row for row in changed.values() if not row.is_active]
    # As for parents: the worker that suspended it may not have acknowledged yet, and it keeps its place.
    push_on_commit(resumed, requeue_running=True, by_creation_time=True)
    if ended:
        stop_on_commit(ended)


def locked(id: UUID | str) -> Approval:
    """Return an approval, read under the lock of its activity's row. Raises `ApprovalNotFound`, `ActivityLocked`."""
    approval_id = _parsed(id)
    approvals = Approval.objects.using(database()).filter(pk=approval_id)
    agent_id = approvals.values_list("activity_id", flat=True).first()
    if agent_id is None:
        raise ApprovalNotFound(approval_id)
    try:
        lock_rows(Activity, [agent_id], ("status",), database(), wait=LockWait(conf.LOCK_TIMEOUT))
    except DatabaseError as error:
        if classify_outage(error) is Outage.LOCKED:
            raise ActivityLocked([agent_id], conf.LOCK_TIMEOUT) from error
        raise
    approval = approvals.first()
    if approval is None:
        raise ApprovalNotFound(approval_id)
    return approval


def _is_due(approval: Approval, now: datetime) -> bool:
    return approval.expires_at is not None and approval.expires_at <= now


def _parsed(id: UUID | str) -> UUID:
    try:
        return id if isinstance(id, UUID) else parse_id(id)
    except (ValueError, TypeError, AttributeError):
        raise ApprovalNotFound(id) from None
