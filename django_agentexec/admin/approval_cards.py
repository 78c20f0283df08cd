"""What the pages show of an approval: its question, its arguments as label and value, its expiry, and its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models import Approval, ApprovalKind, ApprovalStatus, OnExpiry
from ..validation import escape_controls
from .actors import actor_names, user_names
from .argument_forms import can_change, label_of
from .formatting import duration, moment, pretty_json
from .values import NOTHING

MAX_TEXT = 10_000  # characters of one argument; a person must see what they approve, so it is large
MAX_JSON = 50_000  # characters
SOON = 15 * 60.0  # seconds before the expiry from which it is marked


@dataclass(frozen=True)
class Card:
    """A pending approval on a page."""

    approval: Approval
    question: str
    arguments: Sequence[tuple[str, str]]
    json: str
    is_cut: bool
    """Whether the page shows only the beginning of an argument."""
    asked: SafeString
    expiry: str
    is_soon: bool
    may_decide: bool
    choices: Sequence[str]
    may_change: bool
    """Whether the page offers to change the arguments."""
    assignee: str
    """The name of the user to whom it is assigned."""

    @property
    def is_question(self) -> bool:
        """Whether it is answered, not approved."""
        return self.approval.kind == ApprovalKind.QUESTION

    @property
    def is_in_doubt(self) -> bool:
        """Whether the outcome of its call is unknown."""
        return self.approval.kind == ApprovalKind.IN_DOUBT

    @property
    def may_approve_run(self) -> bool:
        """Whether all calls of the tool can be approved."""
        return self.approval.kind == ApprovalKind.APPROVAL


@dataclass(frozen=True)
class Line:
    """A decided approval in a table."""

    approval: Approval
    question: str
    summary: str
    badge: SafeString
    by: str
    decided: SafeString | str
    reason: str


def card(approval: Approval, *, may_decide: bool) -> Card:
    """Return the card of a pending approval."""
    json = escape_controls(pretty_json(approval.arguments))
    arguments = _arguments(approval)
    return Card(
        approval=approval,
        question=question(approval),
        arguments=[(name, text[:MAX_TEXT]) for name, text in arguments],
        json=json[:MAX_JSON],
        is_cut=len(json) > MAX_JSON or any(len(text) > MAX_TEXT for _name, text in arguments),
        asked=moment(approval.requested_at),
        expiry=expiry_text(approval, timezone.now()),
        is_soon=_is_soon(approval, timezone.now()),
        may_decide=may_decide,
        choices=[str(choice) for choice in approval.choices or ()],
        may_change=may_decide and can_change(approval),
        assignee=getattr(approval, "assignee", approval.assigned_to or ""),
    )


def name_assignees(approvals: Sequence[Approval]) -> Sequence[Approval]:
    """Look up the names of the users to whom `approvals` are assigned, and return them; one query if there are any."""
    names = user_names({each.assigned_to for each in approvals if each.assigned_to})
    for each in approvals:
        each.assignee = names.get(each.assigned_to or "", each.assigned_to or "")  # type: ignore[attr-defined]  # for the card
    return approvals


def lines(approvals: Iterable[Approval], *, monitors: bool) -> list[Line]:
    """Return the lines of decided approvals; one query for the names of the users."""
    approvals = list(approvals)
    names = actor_names([each.decided_by for each in approvals], monitors=monitors)
    return [
        Line(
            approval=each,
            question=question(each),
            summary=", ".join(f"{name}: {text}" for name, text in _arguments(each))[:300],
            badge=outcome_badge(each),
            by=names.get(each.decided_by or "", NOTHING),
            decided=moment(each.decided_at) if each.decided_at else NOTHING,
            reason=each.reason or (str(each.answer)[:300] if each.answer is not None else NOTHING),
        )
        for each in approvals
    ]


def question(approval: Approval) -> str:
    """Return the question in one line."""
    if approval.title:
        return escape_controls(approval.title)
    if approval.kind == ApprovalKind.IN_DOUBT:
        return _("Did this call of %(tool)s have its effect?") % {"tool": approval.tool}
    if approval.kind == ApprovalKind.QUESTION:
        return _("The agent asks a question")
    return _("Run %(tool)s?") % {"tool": approval.tool}


def expiry_text(approval: Approval, now: datetime) -> str:
    """Return when a pending approval expires, and what happens then."""
    if approval.expires_at is None:
        return _("Does not expire")
    outcomes = {
        OnExpiry.APPROVE: _("auto-approve"),
        OnExpiry.REJECT: _("auto-reject"),
        OnExpiry.FAIL: _("the activity fails"),
    }
    values = {
        "time": duration(max(0.0, (approval.expires_at - now).total_seconds())),
        "outcome": outcomes[OnExpiry(approval.on_expiry)],
    }
    return _("Expires in %(time)s (%(outcome)s)") % values


def outcome_badge(approval: Approval) -> SafeString:
    """Return the status of an approval as a word with a shape and a colour."""
    tones = {
        ApprovalStatus.PENDING: "attention",
        ApprovalStatus.APPROVED: "complete",
        ApprovalStatus.REJECTED: "error",
    }
    tone = tones.get(ApprovalStatus(approval.status), "canceled")
    return format_html('<span class="ae-badge" data-status="{}">{}</span>', tone, status_text(approval))


def status_text(approval: Approval) -> str:
    """Return the status in words."""
    if approval.status == ApprovalStatus.APPROVED and approval.answer is not None:
        return _("Answered")
    if approval.changed_arguments is not None:
        return _("Approved with changes")
    return str(ApprovalStatus(approval.status).label)


def _arguments(approval: Approval) -> list[tuple[str, str]]:
    """Return labels and texts of the arguments. The question itself is the title of the card.

    Characters that reverse the direction of writing are escaped: a person must see what they approve.
    """
    given: Any = approval.effective_arguments
    if not isinstance(given, Mapping):
        return [(_("Input"), _text(given))]
    hidden = ("question", "choices") if approval.kind == ApprovalKind.QUESTION else ()
    return [(label_of(str(name)), _text(value)) for name, value in given.items() if name not in hidden]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if value is None or value == "":
        return NOTHING
    return escape_controls(value.replace("\r\n", "\n") if isinstance(value, str) else pretty_json(value))


def _is_soon(approval: Approval, now: datetime) -> bool:
    return approval.expires_at is not None and (approval.expires_at - now).total_seconds() < SOON
