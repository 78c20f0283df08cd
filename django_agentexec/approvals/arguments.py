"""Arguments that a person changes while approving a tool call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_noop

from ..exceptions import InvalidOption, ResultError
from ..models import Approval, ApprovalKind, ApprovalScope
from ..translation import gettext as _
from ..validation import is_storable, json_result

MAX_ARGUMENTS = 100_000  # characters as text
_KINDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    (gettext_noop("a boolean"), bool),  # before numbers, since it is one in Python
    (gettext_noop("a number"), (int, float)),
    (gettext_noop("a text"), str),
    (gettext_noop("a list"), list),
    (gettext_noop("an object"), dict),
)


def validated_arguments(arguments: Any) -> dict[str, Any]:
    """Return changed arguments as JSON values. Raises `InvalidOption` if they are not a JSON object, or too long."""
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise InvalidOption(
            _("arguments=%(arguments)s must be a dictionary with the names of the arguments as keys.")
            % {"arguments": f"{arguments!r:.200}"}
        )
    try:
        values: dict[str, Any] = json_result(dict(arguments))
    except ResultError as error:
        raise InvalidOption(_("The arguments cannot be stored: %(error)s") % {"error": error}) from error
    if not is_storable("".join(values)):
        raise InvalidOption(_("The names of arguments must not have characters that no database holds."))
    if (length := len(str(values))) > MAX_ARGUMENTS:
        text = _("The arguments have %(length)s characters; at most %(maximum)s are allowed.")
        raise InvalidOption(text % {"length": f"{length:,}", "maximum": f"{MAX_ARGUMENTS:,}"})
    return values


def check_arguments(approval: Approval, arguments: Mapping[str, Any], scope: ApprovalScope) -> None:
    """Raise `InvalidOption` for arguments that the tool call cannot have.

    They have the names of the request, and values of the same kinds; null is exchangeable with every kind. The tool
    itself validates them as it validates those of a model.
    """
    if approval.kind != ApprovalKind.APPROVAL:
        text = _("Approval %(id)s is not a call that can run with other arguments: omit them.")
        raise InvalidOption(text % {"id": approval.id})
    if scope == ApprovalScope.RUN:
        raise InvalidOption(_("Changed arguments concern a single call; scope must be 'once'."))
    asked: Any = approval.arguments
    if not isinstance(asked, Mapping):
        text = _("The arguments of %(tool)s have no names, so they cannot be changed.")
        raise InvalidOption(text % {"tool": approval.tool})
    if set(arguments) != set(asked):
        wrong = sorted(set(arguments) ^ set(asked))
        text = _("The arguments of %(tool)s are %(names)s; give exactly these. Missing or unknown: %(wrong)s.")
        names = ", ".join(sorted(asked)) or _("none")
        raise InvalidOption(text % {"tool": approval.tool, "names": names, "wrong": ", ".join(wrong)})
    for name, value in arguments.items():
        kind = _kind(asked[name])
        if kind and _kind(value) not in ("", kind):
            text = _("The argument %(name)r of %(tool)s is %(kind)s, but %(value)s is not.")
            facts = {"name": name, "tool": approval.tool, "kind": _(kind), "value": f"{value!r:.100}"}
            raise InvalidOption(text % facts)


def _kind(value: Any) -> str:
    return next((name for name, types in _KINDS if isinstance(value, types)), "")
