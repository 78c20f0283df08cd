"""`agentexec approvals`: list the decisions that agents wait for, and approve, reject or answer them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import activity, approvals
from ..activity.store import database
from ..exceptions import AlreadyDecided, ApprovalNotFound, InvalidOption
from ..ids import HEX_DIGITS, id_range
from ..models import Approval, ApprovalQuerySet, ApprovalScope, ApprovalStatus
from ..schemas import ApprovalSchema
from .arguments import positive
from .command import FAILED, OK, Output, Subcommand, account_actor
from .times import time_span

MAX_CANDIDATES = 3  # ids in the error message for ambiguous first digits
MAX_ARGUMENTS = 2_000  # characters of the arguments in a line


class Approvals(Subcommand):
    """Approvals: the list, and the decisions."""

    help = gettext_lazy("list the decisions that agents wait for; approve, reject or answer them")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the actions with their arguments."""
        parser.add_argument("--json", action="store_true", help=_("print JSON in the shape of REST"))
        actions = parser.add_subparsers(dest="action", metavar="action")
        listing = _add_action(actions, "list", _("list approvals, by default those that wait"))
        listing.add_argument(
            "--status",
            choices=ApprovalStatus.values,
            default="pending",
            help=_("status of the approvals (default: pending)"),
        )
        listing.add_argument("--tool", help=_("name of the tool"))
        listing.add_argument("--limit", type=positive, default=50, metavar="N", help=_("maximum number (default: 50)"))
        approve = _add_action(actions, "approve", _("approve a tool call"))
        approve.add_argument("id", help=_("id of the approval, or its first digits"))
        approve.add_argument("--reason", default="", help=_("reason, stored with the decision"))
        scope_help = _("approve this call, or all calls of the tool in this activity (default: once)")
        approve.add_argument("--scope", choices=ApprovalScope.values, default="once", help=scope_help)
        arguments_help = _("JSON object: arguments of the call in place of those that the agent chose")
        approve.add_argument("--arguments", type=_json_object, metavar="JSON", help=arguments_help)
        reject = _add_action(actions, "reject", _("reject a tool call, or decline a question"))
        reject.add_argument("id", help=_("id of the approval, or its first digits"))
        reject.add_argument("--reason", required=True, help=_("reason, which the agent reads"))
        answer = _add_action(actions, "answer", _("answer a question, or state the output of a call in doubt"))
        answer.add_argument("id", help=_("id of the approval, or its first digits"))
        answer.add_argument("text", help=_("the answer, or the output of the call"))
        for action in (listing, approve, reject, answer):
            # Without a default, which would replace a --json before the action.
            action.add_argument(
                "--json", action="store_true", default=argparse.SUPPRESS, help=_("print JSON in the shape of REST")
            )

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """List, or decide."""
        decide: dict[str, Callable[[UUID], Approval]] = {
            "approve": lambda id: approvals.approve(
                id, reason=options["reason"], scope=options["scope"], arguments=options["arguments"]
            ),
            "reject": lambda id: approvals.reject(id, reason=options["reason"]),
            "answer": lambda id: approvals.answer(id, _answer(id, options["text"])),
        }
        if options["action"] in decide:
            return _decide(out, options, decide[options["action"]])
        return _list(out, options)


def _add_action(actions: argparse._SubParsersAction[Any], name: str, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=help, description=help)
    return parser


def _decide(out: Output, options: dict[str, Any], decide: Callable[[UUID], Approval]) -> int:
    found = _find(options["id"])
    try:
        with activity.acting_as(account_actor()):
            decided, code = decide(found), OK
    except AlreadyDecided as refusal:
        out.note(_("Another decision was made before; yours was not applied."))
        decided, code = refusal.approval, FAILED
    if options["json"]:
        out.json(ApprovalSchema.model_validate(decided))
    else:
        values = {"id": decided.id, "tool": decided.tool, "status": decided.status, "answer": decided.answer}
        text = (
            _("%(id)s %(tool)s: %(status)s") if decided.answer is None else _("%(id)s %(tool)s: answered: %(answer)s")
        )
        out.write(text % values)
    return code


def _list(out: Output, options: dict[str, Any]) -> int:
    status = options.get("status") or "pending"
    found: ApprovalQuerySet = Approval.objects.using(database()).select_related("activity").filter(status=status)
    found = found.pending() if status == "pending" else found.order_by("-id")
    if options.get("tool"):
        found = found.filter(tool=options["tool"])
    rows = list(found[: options.get("limit") or 50])
    if options.get("json"):
        out.json([ApprovalSchema.model_validate(row).model_dump(mode="json") for row in rows])
        return OK
    if not rows:
        out.note(_("No approval matches."))
        return OK
    header = [_("id"), _("kind"), _("tool"), _("task"), _("expires"), _("question or arguments")]
    out.table(header, [_row(row) for row in rows])
    return OK


def _row(row: Approval) -> list[object]:
    expires = "-"
    if row.expires_at is not None and row.is_pending:
        expires = time_span(max(0.0, (row.expires_at - timezone.now()).total_seconds()))
    given = row.arguments if isinstance(row.arguments, dict) else {"": row.arguments}
    text = row.title or ", ".join(f"{name}={value!r}" if name else repr(value) for name, value in given.items())
    if row.choices:
        text += f" ({', '.join(map(str, row.choices))})"
    return [row.id, row.kind, row.tool, row.activity.agent_type, expires, text[:MAX_ARGUMENTS]]


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(_("is not JSON: %(error)s") % {"error": error}) from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(_("must be a JSON object."))
    return value


def _answer(id: UUID, text: str) -> Any:
    """Return the choice that has this text in its own type, or the text."""
    choices = Approval.objects.using(database()).values_list("choices", flat=True).get(pk=id) or ()
    return next((choice for choice in choices if str(choice) == text), text)


def _find(text: str) -> UUID:
    """Return the id that equals, or begins with, `text`. Raises `ApprovalNotFound`, and `InvalidOption` for several."""
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{1,{HEX_DIGITS}}}", digits):
        raise ApprovalNotFound(repr(text))
    same = Approval.objects.using(database()).filter(id__range=id_range(digits)).order_by("id")
    found: list[UUID] = list(same.values_list("id", flat=True)[: MAX_CANDIDATES + 1])
    if not found:
        raise ApprovalNotFound(text)
    if len(found) > 1:
        ids = ", ".join(map(str, found[:MAX_CANDIDATES])) + (", ..." if len(found) > MAX_CANDIDATES else "")
        message = _("Several approvals begin with %(digits)s: %(ids)s. Give more digits.")
        raise InvalidOption(message % {"digits": text, "ids": ids})
    return found[0]
