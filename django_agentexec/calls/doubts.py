"""Tool calls in doubt: they were started when their process died, so nobody knows whether they had their effect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext

from ..conf import conf, in_site_language
from ..models import AgentCall, Approval, ApprovalKind, ApprovalStatus, CallState, OnExpiry
from ..validation import one_line
from .paths import short_call_id
from .position import Position

MAX_PROBLEM = 500  # characters of the error of a stated output
UNKNOWN_OUTCOME = (
    "Error: the process died during this call, so its outcome is unknown: it may have had its effect or not. "
    "Find out before you repeat it."
)


async def outcome_by_person(
    position: Position, row: AgentCall, call_id: str, arguments: Any, agent: str, load: Callable[[Any], Any]
) -> tuple[CallState, Any] | None:
    """Return state and output of a call in doubt as a person has stated them, or None if it must be made again.

    Until there is a decision, raise `Suspended`. A call whose process dies again after the decision needs another, as
    does a stated output that `load` rejects: it would fail every attempt.
    """
    decision, problem = position.approval(call_id), ""
    if decision is not None and decision.kind == ApprovalKind.IN_DOUBT and not decision.is_pending:
        if not (decision.decided_at and row.started_at > decision.decided_at):
            outcome = _outcome(decision)
            problem = "" if outcome is None or outcome[0] != CallState.DONE else _problem(outcome[1], load)
            if not problem:
                return outcome
        decision = None
    if decision is None or decision.kind != ApprovalKind.IN_DOUBT:
        on_expiry = conf.APPROVAL_ON_EXPIRY
        position.journal.request(
            position.path,
            call_id,
            kind=ApprovalKind.IN_DOUBT,
            tool=row.name,
            agent=agent,
            arguments=arguments,
            title=refusal_of(row.name, problem) if problem else "",
            expires_at=timezone.now() + timedelta(seconds=conf.APPROVAL_TIMEOUT) if conf.APPROVAL_TIMEOUT else None,
            # An approval would be a second call that nobody has allowed.
            on_expiry=OnExpiry.REJECT if on_expiry == OnExpiry.APPROVE else on_expiry,
        )
        decision = position.journal.requests[position.path, short_call_id(call_id)]
    await position.journal.active_runs.pause(position.path)
    raise position.journal.attempt.suspend_for_decision([decision])


def refusal_of(tool: str, problem: str) -> str:
    """Return the title of the request that follows a stated output which the run cannot use."""
    text = in_site_language(gettext, "%(tool)s: the stated output cannot be used (%(problem)s). State it again.")
    return text % {"tool": tool, "problem": problem[:MAX_PROBLEM]}


def _problem(output: Any, load: Callable[[Any], Any]) -> str:
    try:
        load(output)
    except Exception as error:  # noqa: BLE001  # a function of the project may raise anything
        return one_line(error)
    return ""


def _outcome(decision: Approval) -> tuple[CallState, Any] | None:
    if decision.status != ApprovalStatus.APPROVED and not (
        decision.status == ApprovalStatus.EXPIRED and decision.on_expiry == OnExpiry.APPROVE
    ):
        return CallState.IN_DOUBT, f"{UNKNOWN_OUTCOME} {decision.reason}".strip()
    return None if decision.answer is None else (CallState.DONE, decision.answer)
