"""The log line of a decision, and the signals about requests and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext

from ..activity.log_lines import LOGGED, log
from ..activity.suspension import Suspend
from ..activity.transitions import Operation
from ..conf import in_site_language
from ..models import Activity, ActivityLog, Approval, ApprovalKind, ApprovalStatus, OnExpiry
from ..signals import activities_changed, approval_decided, approval_requested


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDecision(Operation):
    """Log a decision about approvals of one tool. It is written with the decision, in one transaction."""

    update_fields = LOGGED

    approvals: Sequence[Approval]

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        return log(activity, in_site_language(_text, self.approvals[0]), now)


def _text(approval: Approval) -> str:
    """Return the text of a decision; called in the language of the site."""
    text = _outcome(approval) % {"tool": approval.tool}
    is_by_person = approval.status != ApprovalStatus.EXPIRED
    return f"{text} {approval.reason}".rstrip() if is_by_person else text


def _outcome(approval: Approval) -> str:
    is_question = approval.kind == ApprovalKind.QUESTION
    match approval.status:
        case ApprovalStatus.APPROVED if approval.answer is not None and not is_question:
            return gettext("%(tool)s: a person stated the output of the call.")
        case ApprovalStatus.APPROVED if approval.changed_arguments is not None:
            return gettext("%(tool)s was approved with changed arguments.")
        case ApprovalStatus.APPROVED:
            return gettext("%(tool)s was answered.") if is_question else gettext("%(tool)s was approved.")
        case ApprovalStatus.REJECTED:
            return gettext("%(tool)s was declined.") if is_question else gettext("%(tool)s was rejected.")
    if approval.on_expiry == OnExpiry.APPROVE and not is_question:
        return gettext("%(tool)s was not decided in time and is approved.")
    return gettext("%(tool)s was not decided in time.")


def install() -> None:
    """Send the signals about approvals from now on; called when the app is ready."""
    activities_changed.connect(_on_changes, Activity, dispatch_uid="agentexec.approvals")


def _on_changes(changes: Sequence[Any], **signal: Any) -> None:
    for _activity, _line, operation in changes:
        if isinstance(operation, Suspend):
            for approval in operation.new_requests:
                approval_requested.send_robust(Approval, approval=approval)
        elif isinstance(operation, LogDecision):
            for approval in operation.approvals:
                approval_decided.send_robust(Approval, approval=approval)
