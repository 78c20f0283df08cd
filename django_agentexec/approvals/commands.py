"""The public functions: approve, reject and answer, each with its async version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from ..blocking import blocking
from ..current import acting_as
from ..exceptions import InvalidOption, ResultError
from ..models import Approval, ApprovalScope, ApprovalStatus
from ..translation import gettext as _
from ..validation import is_storable, json_result
from .arguments import validated_arguments
from .decisions import Verdict, decide

MAX_REASON = 2_000  # characters; the agent reads the reason
MAX_ANSWER = 20_000  # characters of an answer as JSON

__all__ = ["aanswer", "aapprove", "answer", "approve", "areject", "reject"]


@blocking
def approve(
    id: UUID | str,
    *,
    by: Any = None,
    reason: str = "",
    scope: str = "once",
    arguments: Mapping[str, Any] | None = None,
) -> Approval:
    """Approve a tool call: the activity resumes, and the tool runs. A call in doubt runs again.

    `by` is the user, or the name of the program, that decides; by default the actor of `activity.acting_as`. With
    `scope="run"` all calls of the tool in this activity are approved, also those that wait already. `arguments` are
    those with which the tool runs in place of those that the model chose: the same names, with values of the same
    kinds. Returns the approval; the same decision made before is no error.

    Raises `AlreadyDecided` if another decision was made before or the approval has expired, `ApprovalVoid` if the
    activity no longer waits for it, `ApprovalNotFound`, and `InvalidOption` for a question and for arguments that the
    call cannot have.
    """
    if scope not in ApprovalScope.values:
        raise InvalidOption(
            _("scope=%(scope)r must be one of %(choices)s.")
            % {"scope": scope, "choices": ", ".join(ApprovalScope.values)}
        )
    given = None if arguments is None else validated_arguments(arguments)
    verdict = Verdict(ApprovalStatus.APPROVED, reason=_checked(reason), scope=ApprovalScope(scope), arguments=given)
    with _acting(by):
        return decide(id, verdict)


async def aapprove(
    id: UUID | str,
    *,
    by: Any = None,
    reason: str = "",
    scope: str = "once",
    arguments: Mapping[str, Any] | None = None,
) -> Approval:
    """Async version of `approve`."""
    return await sync_to_async(approve)(id, by=by, reason=reason, scope=scope, arguments=arguments)


@blocking
def reject(id: UUID | str, *, by: Any = None, reason: str = "") -> Approval:
    """Reject a tool call: the activity resumes, the tool does not run, and the agent reads the reason.

    Of a call in doubt, the agent reads that its outcome is unknown; a question stays without an answer. Otherwise the
    same as `approve`.
    """
    verdict = Verdict(ApprovalStatus.REJECTED, reason=_checked(reason))
    with _acting(by):
        return decide(id, verdict)


async def areject(id: UUID | str, *, by: Any = None, reason: str = "") -> Approval:
    """Async version of `reject`."""
    return await sync_to_async(reject)(id, by=by, reason=reason)


@blocking
def answer(id: UUID | str, answer: Any, *, by: Any = None) -> Approval:
    """Answer a question, or state the output of a call in doubt, which then does not run again.

    `answer` is a JSON value, and one of the choices if the question has any. Raises `InvalidOption` for another answer
    and for an approval that is not a question; otherwise the same as `approve`.
    """
    try:
        value = json_result(answer)
    except ResultError as error:
        raise InvalidOption(_("The answer cannot be stored: %(error)s") % {"error": error}) from error
    if value is None or value == "":
        raise InvalidOption(_("The answer is empty; reject the question to leave it without an answer."))
    if len(str(value)) > MAX_ANSWER:
        raise InvalidOption(
            _("The answer has %(length)s characters; at most %(max_answer)s are allowed.")
            % {"length": f"{len(str(value)):,}", "max_answer": f"{MAX_ANSWER:,}"}
        )
    with _acting(by):
        return decide(id, Verdict(ApprovalStatus.APPROVED, answer=value, is_answer=True))


_answer = answer


async def aanswer(id: UUID | str, answer: Any, *, by: Any = None) -> Approval:
    """Async version of `answer`."""
    return await sync_to_async(_answer)(id, answer, by=by)


@contextmanager
def _acting(by: Any) -> Iterator[None]:
    if by is None:
        yield
        return
    with acting_as(by):
        yield


def _checked(reason: str) -> str:
    if not isinstance(reason, str) or not is_storable(reason):
        raise InvalidOption(_("reason=%(reason)r must be a text without NUL characters.") % {"reason": reason})
    if len(reason) > MAX_REASON:
        raise InvalidOption(
            _("The reason has %(length)s characters; at most %(max_reason)s are allowed.")
            % {"length": f"{len(reason):,}", "max_reason": f"{MAX_REASON:,}"}
        )
    return reason.strip()
