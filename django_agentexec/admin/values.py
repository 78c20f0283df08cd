"""JSON values for people: a text as paragraphs, rows as a table, an object as a list; the JSON is one click away."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import CharField, Func
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import markdown

NOTHING = "\N{EN DASH}"
MAX_CELL = 300  # characters of a value in a list or table; the JSON has all
MAX_ROWS, MAX_COLUMNS = 50, 8  # of a table
MAX_FACTS = 40  # entries of a list
LONG_TEXT = 60  # characters from which a text of an object is shown as text, not in the list
PREFIX = 600  # characters of a stored value that are read to find its first line
MAX_STORED = 100_000  # bytes of a stored value above which PostgreSQL does not unpack it for its first line

_MARKS = re.compile(r"^\s*(#{1,6}|>|[-*+]|```\w*)(?=\s|$)|\*\*|`")
_STRING = re.compile(r':\s*"((?:[^"\\]|\\.)*)')


class JsonPrefix(Func):
    """The first characters of a JSON column as text, so that no list reads megabytes."""

    output_field = CharField()
    function = "SUBSTR"

    def __init__(self, name: str, length: int = PREFIX) -> None:
        super().__init__(name, length=length)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        """Read the text that SQLite stores."""
        return self._cut(compiler, connection, "SUBSTR(%(expressions)s, 1, %(length)s)")

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Read the text of what is small enough: the size alone is known without unpacking."""
        sql = f"CASE WHEN pg_column_size(%(expressions)s) <= {MAX_STORED} "
        return self._cut(compiler, connection, sql + "THEN LEFT((%(expressions)s)::text, %(length)s) END")

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Read the text that MySQL makes of the value."""
        return self._cut(compiler, connection, "SUBSTR(CAST(%(expressions)s AS CHAR), 1, %(length)s)")

    def _cut(self, compiler: Any, connection: Any, template: str) -> Any:
        return super().as_sql(compiler, connection, template=template)


@dataclass(frozen=True)
class Shown:
    """A value as the page shows it."""

    prose: SafeString | None = None
    """A text, rendered as Markdown."""
    is_cut: bool = False
    """Whether the JSON has more of the text."""
    facts: Sequence[tuple[str, str]] = ()
    """Names and values of an object."""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """Cells of a list of objects."""
    note: str = ""
    """States what was left out."""


@dataclass
class _Parts:
    texts: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def shown(value: Any, limit: int, *, with_prose: bool = True) -> Shown:
    """Return how to show a JSON value, with at most `limit` characters of text."""
    if isinstance(value, str):
        return Shown(prose=markdown.render(value[:limit]), is_cut=len(value) > limit)
    if isinstance(value, Mapping):
        return _object(value, limit, with_prose=with_prose)
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        return _table(value)
    if isinstance(value, list):
        lines = [(str(number), cell_text(one, min(limit, MAX_CELL))) for number, one in enumerate(value[:MAX_FACTS], 1)]
        return Shown(facts=lines, note=_left_out(len(value) - MAX_FACTS))
    return Shown(prose=markdown.render(cell_text(value)))


def cell_text(value: Any, limit: int = MAX_CELL) -> str:
    """Return a short text for any JSON value."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, str):
        return _cut(value, limit)
    if isinstance(value, list) and all(isinstance(one, str | int | float | bool) for one in value):
        return _cut(", ".join(cell_text(one) for one in value), limit) or NOTHING
    if isinstance(value, list | Mapping):
        return _cut(json.dumps(value, ensure_ascii=False), limit)
    return str(value)


def first_line(text: str) -> str:
    """Return one line about a stored JSON value, of which `text` may be the beginning only."""
    try:
        value = json.loads(text)
    except ValueError:
        return _line_of_prefix(text)
    if isinstance(value, str):
        return _line(value)
    if isinstance(value, Mapping):
        longest = max((one for one in value.values() if isinstance(one, str)), key=len, default="")
        if len(longest) >= LONG_TEXT:
            return _line(longest)
        simple = [cell_text(one) for one in value.values() if one is not None and not isinstance(one, list | Mapping)]
        return _line(", ".join(simple) or cell_text(value))
    if isinstance(value, list) and any(isinstance(one, list | Mapping) for one in value):
        return ngettext("%(count)d entry", "%(count)d entries", len(value)) % {"count": len(value)}
    return "" if value is None else _line(cell_text(value))


def _object(value: Mapping[str, Any], limit: int, *, with_prose: bool) -> Shown:
    parts = _Parts()
    longest = max((one for one in value.values() if isinstance(one, str)), key=len, default="")
    has_prose = with_prose and (len(longest) >= LONG_TEXT or "\n" in longest.strip())
    for name, one in value.items():
        if has_prose and one is longest and not parts.texts:
            parts.texts.append(longest)
        else:
            parts.facts.append((name[:MAX_CELL], cell_text(one, min(limit, MAX_CELL))))
    return Shown(
        prose=markdown.render(longest[:limit]) if parts.texts else None,
        is_cut=bool(parts.texts) and len(longest) > limit,
        facts=parts.facts[:MAX_FACTS],
        note=_left_out(len(parts.facts) - MAX_FACTS),
    )


def _table(value: list[Mapping[str, Any]]) -> Shown:
    names = list(dict.fromkeys(name for row in value[:MAX_ROWS] for name in row))
    columns = names[:MAX_COLUMNS]
    rows = [[cell_text(row.get(name)) for name in columns] for row in value[:MAX_ROWS]]
    left_out = max(len(value) - MAX_ROWS, 0) + max(len(names) - MAX_COLUMNS, 0)
    return Shown(columns=[name[:MAX_CELL] for name in columns], rows=rows, note=_left_out(left_out))


def _left_out(number: int) -> str:
    return _("The JSON has more.") if number > 0 else ""


def _line_of_prefix(text: str) -> str:
    """Return the first line of the longest text in a value whose end is missing."""
    texts = [text[1:]] if text.startswith('"') else _STRING.findall(text)
    longest = max(texts, key=len, default="")
    for end in range(len(longest), max(len(longest) - 13, 0), -1):  # an escape may be cut, too
        try:
            return _line(json.loads(f'"{longest[:end]}"'))
        except ValueError:
            continue
    return _line(text)


def _line(text: str) -> str:
    """Return the first lines that say enough as one, without Markdown's marks."""
    found = ""
    for line in text.splitlines():
        plain = _MARKS.sub("", line).strip()
        found = f"{found} {plain}".strip()
        if len(found) >= LONG_TEXT:
            break
    return _cut(found, MAX_CELL)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
