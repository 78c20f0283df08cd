"""Results, results of steps and contexts come back as what they were, or are refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from django_agentexec import InvalidContext, Pipeline, PipelineChanged, ResultError, Task, step
from django_agentexec.pipelines.steps import Step, StepOptions, read_step
from django_agentexec.serialization.unknown_fields import unknown_fields
from django_agentexec.tasks import AnyTask, registry

LONE_SURROGATE = json.loads('"half \\ud83d"')
DEEP: list[Any] = []
for _ in range(240):
    DEEP = [DEEP]


class Bill(BaseModel):
    """Refuses its own computed field."""

    model_config = ConfigDict(extra="forbid")
    price: int = 2

    @computed_field
    @property
    def total(self) -> int:
        return self.price * 3


class Open(BaseModel):
    """Takes its own computed field for another."""

    model_config = ConfigDict(extra="allow")
    price: int = 2

    @computed_field
    @property
    def total(self) -> int:
        return self.price * 3


class Letter(BaseModel):
    """Writes a form that it does not read."""

    day: date = date(2026, 5, 4)
    lines: list[str] = ["a", "b"]

    @field_serializer("day")
    def as_text(self, day: date) -> str:
        return day.strftime("%d.%m.%Y")

    @field_serializer("lines")
    def as_one(self, lines: list[str]) -> str:
        return ", ".join(lines)


class Envelope(BaseModel):
    """Writes other fields than it has."""

    price: int = 2

    @model_serializer
    def wrap(self) -> dict[str, Any]:
        return {"version": 1, "amount": self.price}


class Card(BaseModel):
    """Writes a part of its number."""

    number: str = "4111111111111111"

    @field_serializer("number")
    def mask(self, number: str) -> str:
        return "*" * 12 + number[-4:]


class Topics(BaseModel):
    by_page: dict[str, frozenset[str]] = {"first": frozenset(f"word {i}" for i in range(60))}


class Named(BaseModel):
    name: str = Field(default="a", alias="Name")


class Login(BaseModel):
    user: str = "bo"
    token: SecretStr = SecretStr("open sesame")
    cache: int = Field(default=0, exclude=True)


class More(Login):
    size: int = 1


class Once(BaseModel):
    """Its validator raises what Pydantic does not catch."""

    text: str = ""

    @field_validator("text")
    @classmethod
    def explode(cls, text: str) -> str:
        if text == "explode":
            raise KeyError(text)
        return text


@dataclass
class Part:
    label: str
    amounts: set[int]


def define(result: Any, context: type[BaseModel] = Bill) -> AnyTask:
    def handler(agent_id: UUID, context: Any) -> Any: ...

    handler.__annotations__ |= {"context": context, "return": result}
    return Task("local", handler)


def step_of(result: Any) -> Step:
    def method(self: object, context: Bill) -> Any: ...

    method.__annotations__ |= {"return": result}
    return read_step("Local", method, StepOptions(0, "", 0, lambda retry, error: 0.0, None), 0)


def through_task(result: Any, value: Any) -> Any:
    definition = define(result)
    return definition.load_result(json.loads(definition.store_result(value)))


def through_step(result: Any, value: Any) -> Any:
    step = step_of(result)
    return step.loaded(step.stored(value), step.result_type)


SURVIVORS: list[tuple[Any, Any]] = [
    (Bill, Bill(price=4)),
    (list[Bill], [Bill(price=4)]),
    (Open, Open(price=4)),
    (Letter, Letter(lines=["c"])),
    (dict[str, Letter], {"a": Letter()}),
    (Envelope, Envelope(price=4)),
    (list[Envelope], [Envelope(price=4)]),
    (Topics, Topics()),
    (set[str], {f"word {i}" for i in range(60)}),
    (list[set[str]], [{"a", "b", "c"}]),
    (Part, Part("a", {3, 1, 2})),
    (Named, Named(Name="b")),
    (tuple[Bill, set[int]], (Bill(), {5, 4})),
    (dict[int, datetime], {1: datetime(2026, 1, 1, tzinfo=UTC)}),
    (bytes, b"abc"),
    (type(None), None),
]


@pytest.mark.parametrize("through", [through_task, through_step])
@pytest.mark.parametrize(("result", "value"), SURVIVORS, ids=range(len(SURVIVORS)))
def test_a_result_comes_back_as_it_was(through: Callable[[Any, Any], Any], result: Any, value: Any) -> None:
    assert through(result, value) == value


LOST: list[tuple[Any, Any, str]] = [
    (float, float("nan"), "NaN"),
    (float | None, float("inf"), "NaN and infinity are not JSON"),
    (dict[str, Any], {"score": [float("nan")]}, r"\['score'\]\[0\]: NaN and infinity are not JSON"),
    (dict[tuple[int, int], str], {(1, 2): "a"}, "valid array"),
    (Any, DEEP, r"recursion|nested"),
    (int, 10**5000, "range|digits"),
    (Once, Once.model_construct(text="explode"), "explode"),
    (Bill, {"price": "much"}, "valid integer"),
]


@pytest.mark.parametrize("through", [through_task, through_step])
@pytest.mark.parametrize(("result", "value", "text"), LOST, ids=range(len(LOST)))
def test_a_result_that_does_not_survive_is_refused(
    through: Callable[[Any, Any], Any], result: Any, value: Any, text: str
) -> None:
    with pytest.raises(ResultError, match=text):
        through(result, value)


@pytest.mark.parametrize("through", [through_task, through_step])
@pytest.mark.parametrize("result", [Any, dict[str, list[str]]])
def test_half_a_surrogate_pair_is_replaced(through: Callable[[Any, Any], Any], result: Any) -> None:
    assert through(result, {LONE_SURROGATE: [LONE_SURROGATE, "a\x00"]}) == {"half \ufffd": ["half \ufffd", "a\ufffd"]}


def test_a_result_keeps_its_computed_fields_where_they_can_be_read() -> None:
    class Total(BaseModel):
        price: int = 2

        @computed_field
        @property
        def total(self) -> int:
            return self.price * 3

    assert json.loads(define(Total).store_result(Total())) == {"price": 2, "total": 6}


def test_a_result_leaves_out_what_its_type_declares_to_leave_out() -> None:
    definition = define(Login)

    stored = json.loads(definition.store_result(More(cache=3)))

    assert stored == {"user": "bo", "token": "**********"}
    assert "4111111111111111" not in define(Card).store_result(Card()).decode()


def test_objects_of_a_result_without_a_type_come_back_as_json() -> None:
    assert through_task(Any, [Bill(), date(2026, 5, 4), {"a": {1}}]) == [
        {"price": 2, "total": 6},
        "2026-05-04",
        {"a": [1]},
    ]


@pytest.mark.parametrize("value", [Login(), Login(token=SecretStr("**********"), cache=1), More(token=SecretStr(""))])
def test_a_step_hands_on_everything_or_is_refused(value: Login) -> None:
    with pytest.raises(ResultError, match=r"token|cache|size"):
        step_of(Login).stored(value)


def test_a_step_hands_on_what_its_model_masks_in_json() -> None:
    assert through_step(Card, Card()) == Card()


def test_a_stored_step_that_its_type_no_longer_holds_is_found() -> None:
    stored = step_of(Topics).stored(Topics())

    with pytest.raises(PipelineChanged, match="data would be lost"):
        step_of(Part).loaded({"label": "a", "amounts": [1, 2], "more": 1}, "Part")
    with pytest.raises(PipelineChanged, match="cannot represent it"):
        step_of(Once).loaded({"text": "explode"}, "Once")
    with pytest.raises(PipelineChanged, match="data would be lost"):
        step_of(Topics).loaded(stored | {"more": 1}, "Topics")


def test_a_step_reads_what_an_earlier_release_has_stored() -> None:
    class Total(BaseModel):
        price: int = 2

        @computed_field
        @property
        def total(self) -> int:
            return self.price * 3

    assert step_of(Total).loaded({"price": 2, "total": 6}, "Total") == Total()


# Contexts


class Loose(BaseModel):
    value: Any = None
    maybe: float | None = None
    bills: list[Login] = []


def test_a_strict_context_with_a_computed_field_is_stored() -> None:
    assert define(Any, Bill).store_context(Bill(price=4)) == {"price": 4}


CHANGED: list[tuple[type[BaseModel], BaseModel, str]] = [
    (Login, Login(), "another value at token: a SecretStr is stored as asterisks. Pass a reference"),
    (Login, Login(token=SecretStr("**********"), cache=3), "at cache: the field is declared with exclude=True"),
    (Login, More(token=SecretStr("**********")), "at size: Login has no such field"),
    (Loose, Loose(bills=[More(token=SecretStr("**********"))]), r"at bills\[0\].size: Login has no such field"),
    (Loose, Loose(maybe=float("inf")), "at maybe: NaN and infinity are not JSON"),
    (Loose, Loose(value={"x": [float("nan")]}), r"at value\['x'\]\[0\]: NaN and infinity are not JSON"),
    (Loose, Loose(value={"at": date(2026, 1, 1)}), r"at value\['at'\]: a date would arrive as a str. Annotate"),
    (Loose, Loose(value=Bill()), "at value: a Bill would arrive as a dict"),
    (Card, Card(), "at number: its serializer writes"),
    (Letter, Letter(), "does not survive as JSON"),
    (Loose, Loose(value=10**5000), "range|digits"),
]


@pytest.mark.parametrize(("kind", "context", "text"), CHANGED, ids=range(len(CHANGED)))
def test_a_context_that_would_change_on_the_way_is_refused(
    kind: type[BaseModel], context: BaseModel, text: str
) -> None:
    with pytest.raises(InvalidContext, match=text) as refusal:
        define(Any, kind).store_context(context)

    assert "open sesame" not in str(refusal.value)
    assert "4111111111111111" not in str(refusal.value)


class Fine(BaseModel):
    words: set[str] = {f"word {i}" for i in range(60)}
    places: tuple[float, ...] = (1.0, 2.5)
    plain: Login = Login(token=SecretStr("**********"))
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    anything: Any = {"a": [1, None, True, "text"]}


def test_a_context_with_all_that_json_holds_is_stored() -> None:
    assert define(Any, Fine).store_context(Fine())["places"] == [1.0, 2.5]


class Inner(BaseModel):
    name: str = Field(default="", validation_alias=AliasChoices("Name", AliasPath("names", 0)))


class Free(BaseModel):
    model_config = ConfigDict(extra="allow")


class Renaming(BaseModel):
    new: int = 0

    @model_validator(mode="before")
    @classmethod
    def rename(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"new": values.get("old", 0)}


class Outer(BaseModel):
    inner: Inner = Inner()
    many: list[Inner] = []
    by_key: dict[int, Inner] = {}
    free: Free = Free()
    renaming: Renaming = Renaming()


@pytest.mark.parametrize(
    ("content", "unknown"),
    [
        ({}, []),
        ({"inner": {"Name": "a", "names": ["b"], "name": "c"}, "free": {"x": 1}, "renaming": {"old": 1}}, []),
        ({"iner": {}, "inner": {"nmae": 1}}, ["iner", "inner.nmae"]),
        ({"many": [{}, {"x": 1}], "by_key": {"1": {"y": 1}}}, ["many[1].x", "by_key['1'].y"]),
    ],
)
def test_fields_that_no_model_knows_are_found(content: dict[str, Any], unknown: list[str]) -> None:
    assert list(unknown_fields(Outer.model_validate(content), content)) == unknown


@pytest.fixture(autouse=True)
def forget_the_pipeline() -> Iterator[None]:
    yield
    registry.unregister("measuring")


def test_a_step_whose_result_cannot_be_handed_on_runs_once() -> None:
    runs: list[int] = []

    async def measure(self: Pipeline, context: Bill) -> Bill:
        runs.append(1)
        return Bill.model_construct(price=float("nan"))

    pipeline = type("Measuring", (Pipeline,), {"measure": step(0, max_retries=3)(measure)}, max_retries=3)

    with pytest.raises(ResultError):
        pipeline.run(Bill())
    assert not pipeline.task.retry_policy.is_retryable(ResultError())
    assert runs == [1]
