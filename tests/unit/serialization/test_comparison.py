"""Which changes count as differences between a value and what was loaded in its place, and how they are named."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_serializer

from django_agentexec.serialization.comparison import DECLARED, Comparison

T = TypeVar("T")


class Color(StrEnum):
    RED = "red"


class Tag:
    """A class without `__eq__`."""

    def __init__(self, name: str) -> None:
        self.name = name


class ById(BaseModel):
    id: int
    text: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and self.id == other.id

    def __hash__(self) -> int:
        return self.id


class Box(BaseModel, Generic[T]):
    item: T


class Base(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = ""
    _seen: int = PrivateAttr(default=0)


class More(Base):
    size: int = 1


class Renamed(Base):
    def shout(self) -> str:
        return self.name.upper()


@dataclass
class Part:
    label: str
    parts: list[Part]


class Pair(NamedTuple):
    left: int
    right: int


class Login(BaseModel):
    token: SecretStr = SecretStr("")
    hidden: int = Field(default=0, exclude=True)
    masked: str = ""
    nested: Any = None

    @field_serializer("masked")
    def mask(self, value: str) -> str:
        return "*" * len(value)


SEEN = Base(name="a")
SEEN._seen = 3
# In the hour that this zone has twice, times of two zones never compare equal.
TWICE = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))

SAME: list[tuple[Any, Any]] = [
    (float("nan"), float("nan")),
    ([float("nan")], [float("nan")]),
    (Decimal("NaN"), Decimal("NaN")),
    ({"b", "a"}, {"a", "b"}),
    (frozenset({Tag("a")}), frozenset({Tag("a")})),
    ((1, 2), [1, 2]),
    (deque([1]), [1]),
    (Tag("a"), Tag("a")),
    (TWICE, TWICE.astimezone(UTC)),
    (Color.RED, Color.RED),
    (Box(item=1), Box[int](item=1)),
    (SEEN, Base(name="a")),
    (Renamed(name="a"), Base(name="a")),
    (Part("a", [Part("b", [])]), Part("a", [Part("b", [])])),
    (Pair(1, 2), Pair(1, 2)),
    (iter([1]), []),
]


@pytest.mark.parametrize(("before", "after"), SAME, ids=range(len(SAME)))
def test_what_json_cannot_tell_apart_is_no_difference(before: Any, after: Any) -> None:
    assert Comparison().first_difference(before, after) is None


DIFFERENT: list[tuple[Any, Any, str]] = [
    (float("inf"), None, "NaN and infinity are not JSON"),
    ({"a": [1, {"b": Decimal(1)}]}, {"a": [1, {"b": "1"}]}, "['a'][1]['b']: a Decimal would arrive as a str"),
    (Tag("a"), Tag("b"), "the Tag would arrive as another value"),
    (ById(id=1, text="a"), ById(id=1), "text: the str would arrive as another value"),
    (More(name="a"), Base(name="a"), "size: Base has no such field, so it would be lost"),
    (Base(name="a"), Base(name="a", total=3), "it has 1 more keys when it is loaded"),
    (Base(name="a", total=3), Base(name="a"), "total: the key would be lost"),
    (Part("a", [Part("b", [])]), Part("a", [Part("c", [])]), "parts[0].label: the str would arrive as another value"),
    ({1: "a"}, {"1": "a"}, "[1]: the key would be lost"),
    ({1, 2}, [1, 2], "a set would arrive as a list"),
    ([1, 2], [1], "2 items would arrive as 1"),
    ({"a"}, {"b"}, "an item of type str would arrive as another value"),
    (Login(token=SecretStr("open")), Login(token=SecretStr("****")), "token: a SecretStr is stored as asterisks"),
    ("a", "b", "the str would arrive as another value"),
    (datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), "the datetime would arrive as another value"),
]


@pytest.mark.parametrize(("before", "after", "text"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_a_difference_is_named_with_its_path_and_without_the_value(before: Any, after: Any, text: str) -> None:
    assert str(Comparison().first_difference(before, after)) == text


def test_a_difference_names_the_declaration_that_causes_it() -> None:
    causes = [
        Comparison().first_difference(login, Login(token=SecretStr("**"), masked="**"))
        for login in (Login(hidden=1, token=SecretStr("**")), Login(masked="ab", token=SecretStr("**")), Login())
    ]

    assert [difference and (difference.path, difference.cause) for difference in causes] == [
        ("hidden", "excluded"),
        ("masked", "serializer"),
        ("token", "secret"),
    ]


def test_declared_differences_can_be_accepted_and_hide_no_others() -> None:
    before = Login(token=SecretStr("open"), hidden=1, masked="ab", nested=[More(), 1.5])
    after = Login(token=SecretStr("**"), masked="**", nested=[Base(), 2.5])

    difference = Comparison(accepted=DECLARED).first_difference(before, after)

    assert str(difference) == "nested[1]: the float would arrive as another value"


def test_an_object_without_a_type_may_come_back_as_its_json() -> None:
    before = {"at": datetime(2026, 1, 1, tzinfo=UTC), "models": [ById(id=1)], "set": {"a"}, 1: Color.RED}
    after = {"at": "2026-01-01T00:00:00Z", "models": [{"id": 1, "text": ""}], "set": ["a"], "1": "red"}
    comparison = Comparison(untyped_as_json=True)

    assert comparison.first_difference(before, after) is None
    assert str(comparison.first_difference({"a": float("nan")}, {"a": None})) == "['a']: NaN and infinity are not JSON"
    assert comparison.first_difference([ById(id=1)], [{"id": 2, "text": ""}]) is not None


def test_replaced_characters_are_no_difference_where_text_is_cleaned() -> None:
    assert Comparison(cleaned_text=True).first_difference({"\ud83d": ["\x00"]}, {"\ufffd": ["\ufffd"]}) is None
    assert Comparison().first_difference(["\x00"], ["\ufffd"]) is not None
