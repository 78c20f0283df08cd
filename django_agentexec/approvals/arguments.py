"""Arguments that a person changes while approving a tool call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..exceptions import InvalidOption, ResultError
from ..models import Approval, ApprovalKind, ApprovalScope
from ..validation import is_storable, json_result

MAX_ARGUMENTS = 100_000  # characters as text
_KINDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("a boolean", bool),  # before numbers, since it is one in Python
    ("a number", (int, float)),
    ("a text", str),
    ("a list", list),
    ("an object", dict),
)


def validated_arguments(arguments: Any) -> dict[str, Any]:
    """Return changed arguments as JSON values. Raises `InvalidOption` if they are no JSON object, or too long."""
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise InvalidOption(
            f"arguments={arguments!r:.200} must be a dictionary with the names of the arguments as keys."
        )
    try:
        values: dict[str, Any] = json_result(dict(arguments))
    except ResultError as error:
        raise InvalidOption(f"The arguments cannot be stored: {error}") from error
    if not is_storable("".join(values)):
        raise InvalidOption("The names of arguments must not have characters that no database holds.")
    if (length := len(str(values))) > MAX_ARGUMENTS:
        raise InvalidOption(f"The arguments have {length:,} characters; at most {MAX_ARGUMENTS:,} are allowed.")
    return values


def check_arguments(approval: Approval, arguments: Mapping[str, Any], scope: ApprovalScope) -> None:
    """Raise `InvalidOption` for arguments that the tool call cannot have.

    They have the names of the request, and values of the same kinds; null is exchangeable with every kind. The tool
    itself validates them as it validates those of a model.
    """
    if approval.kind != ApprovalKind.APPROVAL:
        raise InvalidOption(f"Approval {approval.id} is no call that can run with other arguments: omit them.")
    if scope == ApprovalScope.RUN:
        raise InvalidOption("Changed arguments concern a single call; scope must be 'once'.")
    asked: Any = approval.arguments
    if not isinstance(asked, Mapping):
        raise InvalidOption(f"The arguments of {approval.tool} have no names, so they cannot be changed.")
    if set(arguments) != set(asked):
        wrong = sorted(set(arguments) ^ set(asked))
        raise InvalidOption(
            f"The arguments of {approval.tool} are {', '.join(sorted(asked)) or 'none'}; give exactly these. "
            f"Missing or unknown: {', '.join(wrong)}."
        )
    for name, value in arguments.items():
        kind = _kind(asked[name])
        if kind and _kind(value) not in ("", kind):
            raise InvalidOption(f"The argument {name!r} of {approval.tool} is {kind}, but {value!r:.100} is not.")


def _kind(value: Any) -> str:
    return next((name for name, types in _KINDS if isinstance(value, types)), "")
