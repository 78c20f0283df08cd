"""Approvals of tool calls: whether a call must wait for a person, and what a decision means for it.

A decision is found by the place of its call, so a later attempt replays the run up to the call and continues. No state
of the SDK is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.utils import timezone
from pydantic import TypeAdapter

from django_agentexec.calls.doubts import refusal_of
from django_agentexec.calls.position import Position, current_position
from django_agentexec.calls.questions import ASK_PERSON, answer_of
from django_agentexec.calls.recording import UNKNOWN_OUTCOME
from django_agentexec.conf import conf
from django_agentexec.exceptions import InvalidOption
from django_agentexec.models import Approval, ApprovalKind, ApprovalStatus, CallState, OnExpiry
from django_agentexec.validation import MAX_SECONDS

from .wire import output_problem

IN_DOUBT = ("rerun", "fail", "ask")
REJECTED = "Tool execution was not approved."


@dataclass(frozen=True)
class Policies:
    """The options of a run that concern its tool calls."""

    in_doubt_by_tool: Mapping[str, str] = field(default_factory=dict)
    """The policy for calls that were started when their process died, by tool; "" is the default of all others."""
    expires_after: float | None = None
    """Seconds after which an approval expires; None: the setting `APPROVAL_TIMEOUT`."""
    on_expiry: str | None = None
    suspends: bool = True
    """Whether a call that needs an approval suspends the activity; otherwise the handler decides."""

    def __post_init__(self) -> None:
        seconds = self.expires_after
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and 0 <= seconds <= MAX_SECONDS):
            raise InvalidOption(
                f"approval_timeout={seconds!r} must be a timedelta, text such as '4h' or seconds, at most "
                f"{MAX_SECONDS:,} s; 0 is no expiry, and None the setting APPROVAL_TIMEOUT."
            )
        for tool, policy in self.in_doubt_by_tool.items():
            if policy not in IN_DOUBT:
                raise InvalidOption(
                    f"The in_doubt policy of {tool or 'all tools'} is {policy!r}, but must be one of "
                    f"{', '.join(IN_DOUBT)}."
                )
        if self.on_expiry is not None and self.on_expiry not in OnExpiry.values:
            raise InvalidOption(f"on_expiry={self.on_expiry!r} must be one of {', '.join(OnExpiry.values)}.")

    def in_doubt(self, tool: str) -> str:
        """Return the policy of a tool."""
        return self.in_doubt_by_tool.get(tool) or self.in_doubt_by_tool.get("") or "rerun"

    def expiry(self, kind: ApprovalKind) -> dict[str, Any]:
        """Return the columns of a new approval that concern its expiry.

        The approval of a call in doubt would be a second call that nobody has allowed: its expiry rejects.
        """
        seconds = conf.APPROVAL_TIMEOUT if self.expires_after is None else self.expires_after
        on_expiry = self.on_expiry or conf.APPROVAL_ON_EXPIRY
        if kind == ApprovalKind.IN_DOUBT and on_expiry == OnExpiry.APPROVE:
            on_expiry = OnExpiry.REJECT
        return {
            "expires_at": timezone.now() + timedelta(seconds=seconds) if seconds else None,
            "on_expiry": on_expiry,
        }


async def must_wait(
    tool: str,
    agent: str,
    arguments: dict[str, Any],
    call_id: str,
    policies: Policies,
    rule: Callable[[], Awaitable[bool]],
    schema: TypeAdapter[Any] | None = None,
) -> bool:
    """Return whether a tool call waits for a decision that is not made yet; then a request for it is noted."""
    position = current_position()
    if position is None or not policies.suspends:
        return await rule()
    call = position.tool_call(call_id)
    if call is not None and call.state in (CallState.DONE, CallState.IN_DOUBT, CallState.REJECTED):
        return False  # its output is recorded
    decision = position.approval(call_id)
    kind = ApprovalKind.QUESTION if tool == ASK_PERSON else ApprovalKind.APPROVAL
    problem = _problem_of(decision, schema)
    if problem or _asks_for_outcome(position, call_id, decision, policies.in_doubt(tool)):
        kind = ApprovalKind.IN_DOUBT
    elif decision is not None:
        if decision.is_pending:
            position.journal.requests.setdefault((decision.path, decision.call_id), decision)
        return decision.is_pending
    elif position.journal.approved_for_run(tool) or not await rule():
        return False
    if kind == ApprovalKind.IN_DOUBT or decision is None:
        shown = position.changed_arguments(call_id) or arguments
        _request(position, tool, agent, shown, call_id, kind, policies, problem)
    return True


def outcome_without_call(
    position: Position, call_id: str, tool: str, policies: Policies, *, is_in_doubt: bool
) -> tuple[CallState, Any] | None:
    """Return state and output of a call that must not happen (again), or None if it must."""
    decision = position.approval(call_id)
    if decision is not None and decision.kind == ApprovalKind.QUESTION:
        return CallState.DONE, answer_of(decision)
    if decision is not None and _is_rejected(decision):
        if decision.kind == ApprovalKind.IN_DOUBT:
            return CallState.IN_DOUBT, f"{UNKNOWN_OUTCOME} {decision.reason}".strip()
        return CallState.REJECTED, f"{REJECTED} {decision.reason}".strip()
    if not is_in_doubt:
        return None
    if decision is not None and decision.kind == ApprovalKind.IN_DOUBT:
        return None if decision.answer is None else (CallState.DONE, decision.answer)
    return (CallState.IN_DOUBT, UNKNOWN_OUTCOME) if policies.in_doubt(tool) == "fail" else None


def _asks_for_outcome(position: Position, call_id: str, decision: Approval | None, policy: str) -> bool:
    """Return whether a person must state the outcome of a call that was started when its process died."""
    if not position.is_in_doubt(position.tool_call(call_id)):
        return False
    if decision is not None and decision.kind == ApprovalKind.IN_DOUBT:
        call = position.tool_call(call_id)
        # A call that died again after the decision to run it again.
        return bool(call and decision.decided_at and call.started_at > decision.decided_at)
    # An approval is used up by the call that it allowed: the call must not happen a second time by itself.
    return policy == "ask" or (policy == "rerun" and decision is not None)


def _request(
    position: Position,
    tool: str,
    agent: str,
    arguments: dict[str, Any],
    call_id: str,
    kind: ApprovalKind,
    policies: Policies,
    problem: str,
) -> None:
    is_question = kind == ApprovalKind.QUESTION
    title = str(arguments.get("question", "")) if is_question else ""
    position.journal.request(
        position.path,
        call_id,
        kind=kind,
        tool=tool[:200],
        agent=agent[:200],
        arguments=arguments,
        title=refusal_of(tool[:200], problem) if problem else title,
        choices=arguments.get("choices") or None if is_question else None,
        **policies.expiry(kind),
    )


def _problem_of(decision: Approval | None, schema: TypeAdapter[Any] | None) -> str:
    """Return why the SDK would refuse the output that a person has stated, or "": it would fail every attempt."""
    if decision is None or decision.kind != ApprovalKind.IN_DOUBT or decision.answer is None:
        return ""
    return output_problem(decision.answer, schema)


def _is_rejected(decision: Approval) -> bool:
    if decision.status == ApprovalStatus.EXPIRED:
        return decision.on_expiry != OnExpiry.APPROVE
    return decision.status == ApprovalStatus.REJECTED
