"""Contexts from REST and the terminal: an unknown field is an error with its location, unless the model allows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from django_agentexec import task
from django_agentexec.models import Activity
from django_agentexec.tasks import AnyTask
from django_agentexec.tasks.context_input import closed_schema, read_context
from tests.support.management_commands import call
from tests.support.rest_api import admin, client

pytestmark = pytest.mark.django_db


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    model_config = ConfigDict(extra="allow")

    kind: Literal["dog"] = "dog"


class Inner(BaseModel):
    size: int = 1


class Names(RootModel[list[Inner]]):
    pass


@dataclass
class Point:
    x: int = 0


class Outer(BaseModel):
    inner: Inner = Inner()
    inners: list[Inner] = []
    by_name: dict[str, Inner] = {}
    names: Names = Names([])
    either: Cat | Dog | None = None
    tagged: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
    renamed: Inner = Field(Inner(), alias="anotherName")
    any: dict[str, Any] = {}
    point: Point = Point()
    former: int = 0

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_release(cls, values: Any) -> Any:
        return {("former" if key == "old_name" else key): value for key, value in values.items()}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    inner: Inner = Inner()


@pytest.fixture
def read() -> AnyTask:
    @task("read_outer", api=True)
    def read_outer(agent_id: UUID, context: Outer) -> None:
        return None

    return read_outer


@pytest.fixture
def opened() -> AnyTask:
    @task("read_open", api=True)
    def read_open(agent_id: UUID, context: Open) -> None:
        return None

    return read_open


UNKNOWN: list[tuple[dict[str, Any], Any]] = [
    ({"x": 1}, {"x"}),
    ({"inner": {"x": 1}}, {"inner"}),
    ({"inners": [{}, {"sise": 2}]}, {"inners"}),
    ({"by_name": {"a": {"x": 1}}}, {"by_name"}),
    ({"names": [{"x": 1}]}, {"names"}),
    ({"either": {"kind": "cat", "x": 1}}, {"either"}),
    ({"tagged": {"kind": "cat", "x": 1}}, {"tagged"}),
    ({"anotherName": {"x": 1}}, {"anotherName"}),
    ({"point": {"x": 1, "y": 2}}, {"point"}),
    ({"x": 1, "inner": {"y": 1}}, {"x", "inner"}),
]


@pytest.mark.parametrize(("body", "places"), UNKNOWN)
def test_an_unknown_field_is_refused_with_its_place(body: dict[str, Any], places: set[str], read: AnyTask) -> None:
    answer = client(admin()).post("/agents/tasks/read_outer/", body, format="json")

    assert answer.status_code == 400
    assert set(answer.json()) == places
    assert "Extra inputs are not permitted" in json.dumps(answer.json())
    assert not Activity.objects.exists()
    console = call("agents", "enqueue", "read_outer", json.dumps(body))
    assert (console.code, "Extra inputs are not permitted" in console.err) == (2, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inner": {"size": 2}, "inners": [{"size": 1}], "by_name": {"x": {}}, "names": [{}], "any": {"x": {"y": 1}}},
        {"either": {"kind": "dog", "x": 1}, "tagged": {"kind": "dog", "x": {"y": 1}}},
        {"either": {"kind": "cat", "lives": 7}, "anotherName": {"size": 1}, "point": {"x": 1}},
        {"old_name": 1},
    ],
)
def test_fields_of_the_model_are_accepted(body: dict[str, Any], read: AnyTask) -> None:
    assert client(admin()).post("/agents/tasks/read_outer/", body, format="json").status_code == 202


def test_a_model_that_allows_any_field_keeps_them_and_its_parts_do_not(opened: AnyTask) -> None:
    who = client(admin())

    assert who.post("/agents/tasks/read_open/", {"x": 1}, format="json").status_code == 202
    assert Activity.objects.get().context["x"] == 1
    refused = who.post("/agents/tasks/read_open/", {"inner": {"x": 1}}, format="json")
    assert (refused.status_code, list(refused.json())) == (400, ["inner"])


def test_other_errors_come_first(read: AnyTask) -> None:
    with pytest.raises(ValidationError, match="valid integer"):
        read_context(read, '{"inner": {"size": "a", "x": 1}}')


def test_the_published_schema_forbids_unknown_fields(read: AnyTask, opened: AnyTask) -> None:
    tasks = {one["name"]: one["context"] for one in client(admin()).get("/agents/tasks/").json()}
    document = client(admin()).get("/agents/schema/").json()["components"]["schemas"]

    assert tasks["read_outer"]["additionalProperties"] is False
    assert tasks["read_outer"]["$defs"]["Inner"]["additionalProperties"] is False
    assert tasks["read_outer"]["$defs"]["Dog"]["additionalProperties"] is True
    assert tasks["read_open"]["additionalProperties"] is True
    assert document["read_outer_context"]["additionalProperties"] is False
    assert document["read_outer_context_Inner"]["additionalProperties"] is False


def test_a_schema_without_objects_is_left_as_it_is() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "default": [{"type": "object", "properties": {}}]}

    assert closed_schema(schema) == schema
