"""Text for terminals: columns, ages, JSON. Called by every command that prints.

Messages come from agents and may hold anything, escape sequences too, so nothing reaches a terminal before
it went through here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

from pydantic import BaseModel

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_GAP = "  "
ELLIPSIS = "…"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def clean(text: object) -> str:
    """Return `text` without characters that steer a terminal; lines and tabs stay."""
    return _CONTROLS.sub(_REPLACEMENT, str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """Return `text` cleaned, in one line."""
    return " ".join(clean(text).split())


def width(text: str) -> int:
    """Return how many cells of a terminal `text` takes; East Asian characters take two."""
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


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "", cells: int | None = None) -> str:
    """Return aligned columns. `right` names the columns that stand on the right, separated by spaces.

    The last column is shortened so that no line is longer than `cells`, if given.
    """
    lines = [list(header), *([one_line(value) for value in row] for row in rows)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(header))]
    numeric = [name in right.split() for name in header]
    texts = []
    for line in lines:
        padded = [
            " " * (wanted - width(value)) + value if is_number else value + " " * (wanted - width(value))
            for value, wanted, is_number in zip(line, widths, numeric, strict=True)
        ]
        joined = _GAP.join(padded).rstrip()
        texts.append(cut(joined, cells) if cells else joined)
    return "\n".join(texts)


def age(seconds: float | None) -> str:
    """Return seconds in their two largest units, such as `3m 5s`; `-` for None."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    larger = [number for number, (size, _) in enumerate(_UNITS) if left >= size]
    first = larger[0] if larger else len(_UNITS) - 1
    parts: list[str] = []
    for size, unit in _UNITS[first : first + 2]:
        if left >= size or not parts:
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts)


def to_json(value: object) -> str:
    """Return JSON of a schema, or of what JSON holds; no character of it steers a terminal."""
    content = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
