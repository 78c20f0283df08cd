"""The types of the live messages: docs/live.md lists each of them with its fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

from django_agentexec.live.messages import EVENT_TYPES, TYPES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "live.md"
ROW = re.compile(r"^\| `(?P<type>\w+)` \| (?P<fields>[^|]*)\|", re.MULTILINE)


def type_of(message: Any) -> str:
    (name,) = get_args(get_type_hints(message)["type"])
    return str(name)


def documented() -> list[tuple[str, frozenset[str], frozenset[str]]]:
    """Return the type, the required and the optional fields of each row of the table."""
    section = PAGE.read_text().split("## What the server sends")[1].split("\n#")[0]
    rows = []
    for row in ROW.finditer(section):
        optional = frozenset(re.findall(r"\(`(\w+)`\)", row["fields"]))
        rows.append((row["type"], frozenset(re.findall(r"`(\w+)`", row["fields"])) - optional, optional))
    return rows


def test_each_message_is_documented_with_its_fields() -> None:
    defined: list[tuple[str, frozenset[str], frozenset[str]]] = []
    for message in TYPES:
        hints = get_type_hints(message, include_extras=True)
        optional = frozenset(name for name, hint in hints.items() if "NotRequired" in str(hint))
        defined.append((type_of(message), frozenset(hints) - optional - {"type"}, optional))

    assert documented() == defined


def test_server_sent_events_have_all_types_but_pings_and_answers_of_commands() -> None:
    assert list(EVENT_TYPES) == list(dict.fromkeys(t for t in map(type_of, TYPES) if t not in ("ping", "done")))
