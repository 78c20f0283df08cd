"""The form in which a person changes the arguments of a tool call: one field for each argument."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from ..models import Approval, ApprovalKind
from ..validation import escape_controls
from .formatting import pretty_json

MAX_FORM = 50_000  # characters of all arguments
MAX_ROWS = 12  # of a field


@dataclass
class ArgumentField:
    """The field of one argument."""

    name: str
    label: str
    argument: str
    text: str
    is_json: bool
    """Whether the text is JSON; otherwise the argument is a text itself."""
    error: str = ""

    @property
    def rows(self) -> int:
        """The height of the field, in lines."""
        return min(MAX_ROWS, self.text.count("\n") + len(self.text) // 80 + 1)


def can_change(approval: Approval) -> bool:
    """Return whether the arguments of a call can be changed in a form."""
    asked: Any = approval.arguments
    is_call = approval.kind == ApprovalKind.APPROVAL and isinstance(asked, Mapping) and bool(asked)
    return is_call and len(pretty_json(asked)) <= MAX_FORM


def fields_of(approval: Approval) -> list[ArgumentField]:
    """Return the fields with the arguments of the request."""
    return [
        ArgumentField(f"argument-{number}", label_of(argument), argument, *_text_of(value))
        for number, (argument, value) in enumerate(approval.arguments.items())
    ]


def arguments_of(approval: Approval, fields: list[ArgumentField], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments that a form was sent with. Sets texts and errors of `fields`."""
    arguments: dict[str, Any] = {}
    for field in fields:
        asked = approval.arguments[field.argument]
        text = given.get(field.name, field.text).replace("\r\n", "\n")
        is_changed = text != field.text.replace("\r\n", "\n")
        field.text = text
        # The form loses some line ends: a text that nobody has changed stays exactly as it is.
        arguments[field.argument] = asked
        if not is_changed:
            continue
        if not field.is_json:
            arguments[field.argument] = text
            continue
        try:
            arguments[field.argument] = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            field.error = _("This is not valid JSON: %(reason)s") % {"reason": error}
    return arguments


def label_of(name: str) -> str:
    """Return the name of an argument in a form for people."""
    words = escape_controls(name.replace("_", " ").strip())
    return words[:1].upper() + words[1:]


def _text_of(value: Any) -> tuple[str, bool]:
    if isinstance(value, str):
        return value, False
    return pretty_json(value), True


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number in JSON")
