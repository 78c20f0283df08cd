"""Text for terminals: aligned columns, JSON and statuses, without control characters.

Messages come from agents and may contain anything, escape sequences included. Every command prints through
this module.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

from django.utils.translation import gettext as _
from pydantic import BaseModel

from ..schemas import ActivityListItemSchema

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_GAP = "  "
ELLIPSIS = "…"


def clean(text: object) -> str:
    """Return `text` without characters that control a terminal; line breaks and tabs stay."""
    return _CONTROLS.sub(_REPLACEMENT, str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """Return `text` cleaned, in one line."""
    return " ".join(clean(text).split())


def width(text: str) -> int:
    """Return the number of terminal cells that `text` takes; East Asian characters take two."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def cut(text: str, cells: int) -> str:
    """Return `text`, shortened with an ellipsis to at most `cells` cells."""
    if width(text) <= cells:
        return text
    kept = ""
    for character in text:
        if width(kept + character) > cells - 1:
            break
        kept += character
    return kept + ELLIPSIS


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Iterable[int] = (), cells: int | None = None
) -> str:
    """Return aligned columns; the columns at the indexes `right` align right.

    No line is longer than `cells`, if given: its end is cut.
    """
    lines = [list(header), *([one_line(value) for value in row] for row in rows)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(header))]
    aligned_right = set(right)
    texts = []
    for line in lines:
        padded = []
        for column, value in enumerate(line):
            padding = " " * (widths[column] - width(value))
            padded.append(padding + value if column in aligned_right else value + padding)
        joined = _GAP.join(padded).rstrip()
        texts.append(cut(joined, cells) if cells else joined)
    return "\n".join(texts)


def to_json(value: object) -> str:
    """Return a schema, or JSON values, as JSON in which control characters are escaped."""
    content = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def status_text(item: ActivityListItemSchema) -> str:
    """Return the status; `paused` while a pause prevents its start, and what it waits for while it is suspended."""
    if item.paused:
        return _("paused")
    if item.waiting_for:
        return _("waiting: %(reason)s") % {"reason": item.waiting_for}
    return str(item.status)
