"""What a row can hold, and what is refused before anything is written."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.utils.translation import gettext_lazy
from pydantic import BaseModel

from django_agentexec import ActivityNotFound, InvalidOption, ResultError
from django_agentexec.validation import (
    checked_message,
    contains_nul,
    json_result,
    storable_json,
    storable_text,
    validate_id,
    validate_metadata,
    validate_percentage,
    validate_usage,
)


@pytest.mark.parametrize(("value", "stored"), [(0, 0), (100, 100), (12.9, 12), (0.0, 0), (None, None)])
def test_a_percentage_is_stored_as_a_whole_number(value: float | None, stored: int | None) -> None:
    assert validate_percentage(value) == stored


@pytest.mark.parametrize("value", [-1, 101, 100.1, True, "50", float("nan"), float("inf"), Decimal(5), [5]])
def test_an_impossible_percentage_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="give a number from 0 to 100"):
        validate_percentage(value)


@pytest.mark.parametrize(
    "message", [None, 5, b"text", ["text"], ValueError("why"), "", " \n", gettext_lazy("")], ids=repr
)
def test_a_status_message_needs_text(message: Any) -> None:
    with pytest.raises(InvalidOption, match="A status message"):
        checked_message(message)


def test_a_status_message_may_be_a_lazy_translation() -> None:
    assert checked_message(gettext_lazy("Waiting")) == "Waiting"


@pytest.mark.parametrize(
    "usage", [{"cost": 0.5}, {"n": -1}, {"n": True}, {"n": None}, {"n": "1"}, {1: 1}, {"\ud800": 1}, {"\x00": 1}]
)
def test_usage_that_would_break_every_list_is_refused(usage: Any) -> None:
    with pytest.raises(InvalidOption, match=r"whole numbers|no database"):
        validate_usage(usage)


BAD_METADATA = [
    "text",
    [1],
    {"when": complex(1)},
    {"x": float("nan")},
    {1: "key"},
    {"a": "\x00"},
    {"\x00": "a"},
    {"a": {"b": ["\x00"]}},
    {"a": "\ud800"},
]


def nested(levels: int) -> dict[str, Any]:
    """Return so many dictionaries within each other."""
    return {"a": nested(levels - 1)} if levels > 1 else {}


@pytest.mark.parametrize("levels", [260, 900])
def test_metadata_deeper_than_it_can_be_written_is_refused(levels: int) -> None:
    with pytest.raises(InvalidOption, match="cannot be stored"):
        validate_metadata(nested(levels))


@pytest.mark.parametrize("metadata", BAD_METADATA, ids=ascii)
def test_metadata_that_cannot_be_stored_is_refused(metadata: Any) -> None:
    with pytest.raises(InvalidOption):
        validate_metadata(metadata)


def test_metadata_may_hold_what_only_looks_like_an_escape() -> None:
    metadata = {"pattern": r"\u0000", "emoji": "\U0001f600", "nested": {"a": [1, None, True]}}

    assert validate_metadata(metadata) == metadata


@pytest.mark.parametrize(
    ("text", "expected"),
    [("\x00", True), (r"\u0000", False), ("\\\x00", True), (r"\\u0000", False), ("plain", False)],
    ids=ascii,
)
def test_a_nul_in_json_is_told_from_a_backslash_and_a_u(text: str, expected: bool) -> None:
    dumped = json.dumps({"a": text})

    assert contains_nul(dumped) is expected
    assert json.loads(storable_json(dumped)) == {"a": text.replace("\x00", "\ufffd")}


def test_neighbouring_nuls_are_all_replaced() -> None:
    assert json.loads(storable_json(json.dumps("\x00\x00\\\x00"))) == "\ufffd\ufffd\\\ufffd"


def test_text_may_be_lazy_or_an_exception() -> None:
    assert storable_text(gettext_lazy("Waiting")) == "Waiting"
    assert storable_text(ValueError("why")) == "why"


def test_an_id_may_come_as_text() -> None:
    assert validate_id("00000000-0000-0000-0000-000000000007") == UUID(int=7)


@pytest.mark.parametrize("value", ["", "7", None, 7])
def test_what_cannot_be_an_id_is_not_found(value: Any) -> None:
    with pytest.raises(ActivityNotFound):
        validate_id(value)


class Line(BaseModel):
    text: str


class Point(BaseModel):
    x: int
    id: UUID


def test_a_result_may_hold_models() -> None:
    assert json_result([Point(x=1, id=UUID(int=7))]) == [{"x": 1, "id": "00000000-0000-0000-0000-000000000007"}]


LONE_SURROGATE = json.loads('"half \\ud83d"')


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (LONE_SURROGATE, "half \ufffd"),
        ({"parts": [LONE_SURROGATE], LONE_SURROGATE: 1}, {"parts": ["half \ufffd"], "half \ufffd": 1}),
        ([Line(text=LONE_SURROGATE)], [{"text": "half \ufffd"}]),
        ("\x00", "\ufffd"),
    ],
    ids=["text", "keys and lists", "model", "NUL"],
)
def test_what_no_database_holds_is_replaced_in_a_result(value: Any, stored: Any) -> None:
    assert json_result(value) == stored


DEEP: list[Any] = []
for _ in range(240):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value", [object(), {"a": object()}, 10**5000, DEEP], ids=["object", "nested", "digits", "depth"]
)
def test_a_result_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(ResultError):
        json_result(value)
