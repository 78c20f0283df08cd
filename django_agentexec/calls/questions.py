"""Questions that code inside a handler asks a person, for runners of any framework."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from ..conf import conf
from ..current import OwningAttempt
from ..models import Approval, ApprovalKind, ApprovalStatus
from .position import current_scope

ASK_PERSON = "ask_person"
"""The name of the tool."""


async def ask(attempt: OwningAttempt, question: str, choices: Sequence[str] | None, agent: str = "") -> str:
    """Return the answer of a person. Until there is one, raise `Suspended`: the handler runs again with the answer.

    Questions of a tool call, of a step or of the handler itself are numbered, so ask them in the same order each time.
    """
    scope = await current_scope(attempt)
    scope.questions += 1
    call_id = f"question-{scope.questions}"
    found = [each for each in scope.journal.approvals if (each.path, each.call_id) == (scope.path, call_id)]
    decision = next((each for each in reversed(found) if not each.is_void), None)
    if decision is not None and not decision.is_pending:
        return answer_of(decision)
    if decision is None:
        scope.journal.request(
            scope.path, call_id, agent=agent[:200], tool=ASK_PERSON, **question_fields(question, choices)
        )
        decision = scope.journal.requests[scope.path, call_id]
    raise attempt.suspend_for_decision([decision])


def question_fields(question: str, choices: Sequence[str] | None) -> dict[str, Any]:
    """Return the columns of a new question, with the expiry of the settings."""
    seconds = conf.APPROVAL_TIMEOUT
    return {
        "kind": ApprovalKind.QUESTION,
        "arguments": {"question": question, **({"choices": list(choices)} if choices else {})},
        "title": question,
        "choices": list(choices) if choices else None,
        "expires_at": timezone.now() + timedelta(seconds=seconds) if seconds else None,
        "on_expiry": conf.APPROVAL_ON_EXPIRY,
    }


def answer_of(decision: Approval) -> str:
    """Return the answer to a decided question, or a text for the agent if there is none."""
    if decision.status != ApprovalStatus.APPROVED or decision.answer is None:
        return f"Nobody has answered. {decision.reason}".strip()
    return decision.answer if isinstance(decision.answer, str) else str(decision.answer)
