"""group, chain and chord: results in order and in their types."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, SecretStr

from django_agentexec import (
    AgentExecError,
    InvalidContext,
    InvalidOption,
    Status,
    TaskFailed,
    UnknownTask,
    activity,
    chain,
    chord,
    get_result,
    group,
    task,
)
from django_agentexec.models import Activity
from django_agentexec.tasks import AnyTask, registry
from django_agentexec.testing import drain, memory_queue
from tests.support.activity_rows import row
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

RUNS: list[str] = []


class Name(BaseModel):
    name: str


class Brief(BaseModel):
    about: str


class Summary(BaseModel):
    title: str = ""
    results: list[Brief]


class Report(BaseModel):
    text: str


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    RUNS.clear()

    @task("research", max_retries=0)
    def research(agent_id: UUID, context: Name) -> Brief:
        RUNS.append(context.name)
        if context.name == "bad":
            raise ValueError("bad")
        return Brief(about=context.name)

    @task("expand")
    async def expand(agent_id: UUID, context: Brief) -> Report:
        return Report(text=context.about * 2)

    @task("summarize")
    def summarize(agent_id: UUID, context: Summary) -> Report:
        RUNS.append("summarize")
        return Report(text=f"{context.title}: {' '.join(brief.about for brief in context.results)}")

    with memory_queue():
        yield


def get(name: str) -> AnyTask:
    return registry.get(name)


def test_a_groups_results_are_in_order_and_in_their_types() -> None:
    handle = group((get("research"), Name(name="a")), (shout, Text(text="x")), ("research", Name(name="b")))

    drain()

    assert get_result(handle, timeout=0) == [Brief(about="a"), "X", Brief(about="b")]


def test_each_result_of_a_chain_is_the_next_ones_context() -> None:
    handle = chain(("research", Name(name="a")), "expand")

    drain()

    assert get_result(handle, timeout=0) == Report(text="aa")


def test_a_result_that_is_no_context_of_the_next_task_is_named_without_values() -> None:
    @task("loose", max_retries=0)
    def loose(agent_id: UUID, context: Name):  # type: ignore[no-untyped-def]  # its result is not checked
        return {"about": {"secret": "value"}}

    handle = chain(("loose", Name(name="a")), "expand")

    drain()

    assert row(handle.agent_id).error == (
        "InvalidContext: The result of the previous task does not fit task 'expand': about: Input should be a valid "
        "string."
    )


def test_the_callback_of_a_chord_gets_the_results() -> None:
    handle = chord([("research", Name(name=name)) for name in "abc"], "summarize", fields={"title": "All"})

    drain()

    assert get_result(handle, timeout=0) == Report(text="All: a b c")
    assert RUNS == ["a", "b", "c", "summarize"]


class Letter(Summary):
    token: SecretStr = SecretStr("")
    day: date = date(2026, 1, 1)


def test_fields_of_a_callback_are_refused_where_they_would_change_on_the_way() -> None:
    @task("write_letter")
    def write_letter(agent_id: UUID, context: Letter) -> str:
        return context.day.isoformat()

    calls = [("research", Name(name="a"))]
    with pytest.raises(InvalidOption, match="at token: a SecretStr is stored as asterisks"):
        chord(calls, write_letter, fields={"token": SecretStr("open sesame")})
    handle = chord(calls, write_letter, fields={"day": date(2026, 5, 4)})
    drain()

    assert get_result(handle, timeout=0) == "2026-05-04"


def test_members_of_a_group_may_return_what_json_writes_in_another_form() -> None:
    @task("words", max_retries=0)
    def words(agent_id: UUID, context: Name) -> set[str]:
        return {context.name, "word"}

    handle = group((words, Name(name="a")), (words, Name(name="b")))
    drain()

    assert get_result(handle, timeout=0) == [{"a", "word"}, {"b", "word"}]


def test_a_chord_whose_calls_fail_does_not_call_back() -> None:
    handle = chord([("research", Name(name="a")), ("research", Name(name="bad"))], "summarize")

    drain()

    with pytest.raises(TaskFailed, match="ValueError: bad"):
        get_result(handle, timeout=0)
    assert "summarize" not in RUNS


def test_options_are_the_parents_and_metadata_is_everybodys() -> None:
    handle = group(("research", Name(name="a")), metadata={"org": 1}, idempotency_key="k")
    again = group(("research", Name(name="a")), idempotency_key="k")

    drain()

    assert again.agent_id == handle.agent_id
    assert [one.metadata for one in Activity.objects.all()] == [{"org": 1}] * 2


def test_a_cancel_takes_the_calls_along() -> None:
    handle = group(("research", Name(name="a")), ("research", Name(name="b")))
    activity.cancel(handle.agent_id)

    drain()

    assert (RUNS, row(handle.agent_id).status) == ([], Status.CANCELED)


REFUSED: list[tuple[Any, type[AgentExecError], str]] = [
    (lambda: group(), InvalidOption, "needs at least one call"),
    (lambda: group(("nobody", Name(name="a"))), UnknownTask, "nobody"),
    (lambda: group(("research", Text())), InvalidContext, "takes a Name"),
    (lambda: group("research"), InvalidContext, "A call is a tuple"),  # type: ignore[arg-type]
    (
        lambda: chain(("research", Name(name="a")), "summarize"),
        InvalidOption,
        "Task 'research' returns Brief, but the next task of the chain, 'summarize', takes Summary",
    ),
    (
        lambda: chord([("research", Name(name="a"))], "expand"),
        InvalidOption,
        "receives the results in a field 'results'",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_work_is_refused_and_nothing_is_written(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()

    assert not Activity.objects.exists()
