"""The log lines of decisions and assignments, and the signals about decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext

from ..activity.log_lines import LOGGED, log
from ..activity.transitions import Operation
from ..conf import in_site_language
from ..models import Activity, ActivityLog, Approval, ApprovalKind, ApprovalStatus, OnExpiry
from ..signals import approval_decided


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDecision(Operation):
    """Log a decision about approvals of one tool. It is written with the decision, in one transaction."""

    update_fields = LOGGED
    has_own_signals = True

    approvals: Sequence[Approval]

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        return log(activity, in_site_language(_text, self.approvals[0]), now)

    def send_signals(self) -> None:
        for approval in self.approvals:
            approval_decided.send_robust(Approval, approval=approval)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAssignment(Operation):
    """Log that an approval was handed over. Only users with the monitor permission read to whom."""

    update_fields = LOGGED

    tool: str
    assignee: str
    """The name of the user; "" for nobody in particular."""

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        internal = in_site_language(self._internal_text) if self.assignee else ""
        return log(activity, in_site_language(self._text), now, internal_message=internal)

    def _text(self) -> str:
        if not self.assignee:
            return gettext("%(tool)s is assigned to nobody in particular.") % {"tool": self.tool}
        return gettext("%(tool)s was handed over to another person.") % {"tool": self.tool}

    def _internal_text(self) -> str:
        return gettext("%(tool)s was handed over to %(name)s.") % {"tool": self.tool, "name": self.assignee}


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
