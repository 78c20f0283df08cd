"""Cached answers: found by the whole request, kept from other tenants, marked in the trace, and free."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Model, ModelSettings, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings
from pydantic import BaseModel

from django_agentexec import InvalidOption, ModelCache, OpenAIRunner, ResilientModel, task
from django_agentexec.models import Activity, AgentCall, CallKind, ModelPrice, Status
from django_agentexec.policy import TenantPolicy
from django_agentexec.tasks import registry
from django_agentexec.testing import drain, memory_queue
from tests.support.text_client import TextClient

pytestmark = pytest.mark.django_db(transaction=True)

ZERO = ModelSettings(temperature=0)


class Empty(BaseModel):
    prompt: str = "Go."


class Tenants(TenantPolicy):
    keys = ["org"]


class OutOfOrder(LocMemCache):
    """A cache whose server is unavailable."""

    async def aget(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("gone")

    async def aset(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionError("gone")


class Counting(ScriptedModel):
    """A model that numbers its answers."""

    model = "counting"

    def __init__(self, answers: int = 20) -> None:
        super().__init__([[assistant_message(f"Answer {number}")] for number in range(1, answers + 1)])


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    caches["default"].clear()
    with memory_queue():
        yield


def define(model: Model, cache: Any = True, *, tools: Any = (), **agent_options: Any) -> Any:
    options = {"model_settings": ZERO, **agent_options}

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Writer", model=model, tools=list(tools), **options)
        result = await OpenAIRunner(agent_id, cache=cache, stream=True).run(agent, context.prompt)
        return str(result.final_output)

    return task("writer", max_retries=0)(handler)


def answers(definition: Any, *metadata: dict[str, Any], prompts: tuple[str, ...] = ("Go.",)) -> list[Any]:
    """Run once per metadata and prompt, and return the results in this order."""
    runs = []
    for values in metadata or ({}, {}):
        for prompt in prompts:
            runs.append(definition.enqueue(Empty(prompt=prompt), metadata=values).agent_id)
            drain()
    rows = {row.agent_id: row for row in Activity.objects.all()}
    return [rows[agent_id].result or rows[agent_id].error for agent_id in runs]


def test_the_same_request_is_answered_from_the_cache_at_no_cost() -> None:
    ModelPrice.objects.create(pattern="*", valid_from="2020-01-01", input_price=1, output_price=1)
    model = Counting()

    assert answers(define(model)) == ["Answer 1", "Answer 1"]
    assert len(model.calls) == 1
    rows = AgentCall.objects.filter(kind=CallKind.MODEL).order_by("id")
    assert [(row.name, row.is_cached, row.state) for row in rows] == [
        ("counting", False, "done"),
        ("counting", True, "done"),
    ]
    cached = rows[1]
    assert (cached.cost, cached.input_tokens, cached.output_tokens) == (Decimal(0), 0, 0)
    second = Activity.objects.order_by("agent_id")[1]
    assert (second.usage or {}).get("requests", 0) == 0
    assert second.cost == 0, "known, hence not null"
    assert TextClient(second.agent_id).read() == "Answer 1"


def test_another_request_is_another_answer() -> None:
    model = Counting()

    assert answers(define(model), {}, prompts=("One.", "Two.", "One.")) == ["Answer 1", "Answer 2", "Answer 1"]


@pytest.mark.parametrize(
    "changed",
    [
        {"instructions": "Be brief."},
        {"model_settings": ModelSettings(temperature=0, max_tokens=7)},
        {"tools": [function_tool(lambda: "", name_override="x", description_override="y")]},
        {"output_type": Empty},
        {"handoffs": [Agent("Other")]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_each_part_of_the_request_is_part_of_the_key(changed: dict[str, Any]) -> None:
    model = ScriptedModel([[assistant_message('{"prompt": "one"}')], [assistant_message('{"prompt": "two"}')]])
    answers(define(model), {})
    registry.unregister("writer")
    answers(define(model, **changed), {})

    assert len(model.calls) == 2


def test_models_do_not_share_answers() -> None:
    first, second = Counting(), Counting()
    second.model = "another"
    answers(define(first), {})
    registry.unregister("writer")
    answers(define(second), {})

    assert (len(first.calls), len(second.calls)) == (1, 1)


def test_tenants_do_not_share_answers() -> None:
    model = Counting()
    with override_settings(AGENTEXEC={**_memory(), "POLICY": Tenants}):
        found = answers(define(model), {"org": "a", "n": 1}, {"org": "b"}, {"org": "a", "n": 2}, {}, {})

    assert found == ["Answer 1", "Answer 2", "Answer 1", "Answer 3", "Answer 4"]


def test_without_tenants_in_the_policy_only_equal_metadata_shares() -> None:
    model = Counting()

    assert answers(define(model), {"org": "a"}, {"org": "b"}, {"org": "a"}) == ["Answer 1", "Answer 2", "Answer 1"]


def test_sharing_is_opt_in() -> None:
    model = Counting()
    with override_settings(AGENTEXEC={**_memory(), "POLICY": Tenants}):
        assert answers(define(model, ModelCache(tenant=())), {"org": "a"}, {"org": "b"}) == ["Answer 1"] * 2
    registry.unregister("writer")
    by_plan = answers(define(model, ModelCache(tenant=["plan"])), {"plan": 1, "n": 1}, {"plan": 1, "n": 2}, {"plan": 2})
    assert by_plan == ["Answer 2", "Answer 2", "Answer 3"]


def _memory() -> dict[str, Any]:
    return {"QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"}


def test_another_temperature_is_refused_before_the_call() -> None:
    model = Counting()

    (error,) = answers(define(model, model_settings=ModelSettings(temperature=0.7)), {})
    assert "Agent 'Writer' has the temperature 0.7, but answers are cached for temperature 0 only" in error
    assert len(model.calls) == 0


def test_a_resilient_model_has_a_cache_of_its_own() -> None:
    model = Counting()

    assert answers(define(ResilientModel([model], cache=True), cache=False)) == ["Answer 1", "Answer 1"]
    assert len(model.calls) == 1


def test_the_answer_of_a_fallback_is_not_kept() -> None:
    first = ScriptedModel([ConnectionError("down"), [assistant_message("Big.")]])
    second = ScriptedModel([[assistant_message("Small.")]])

    found = answers(define(ResilientModel([first, second], cache=True), cache=False), {}, {}, {})
    assert found == ["Small.", "Big.", "Big."]


def test_a_cached_answer_can_call_tools() -> None:
    made: list[str] = []

    @function_tool
    def look_up(name: str) -> str:
        """Look up."""
        made.append(name)
        return "fine"

    model = ScriptedModel([[function_call("look_up", {"name": "Acme"}, call_id="1")], [assistant_message("Fine.")]])

    assert answers(define(model, tools=[look_up])) == ["Fine.", "Fine."]
    assert (len(model.calls), made) == (2, ["Acme", "Acme"])


def test_a_later_attempt_replays_a_cached_answer_without_the_cache() -> None:
    attempts: list[int] = []
    model = Counting()
    answers(define(model), {})
    registry.unregister("writer")

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Writer", model=model, model_settings=ZERO)
        result = await OpenAIRunner(agent_id, cache=True).run(agent, context.prompt)
        attempts.append(1)
        if len(attempts) == 1:
            caches["default"].clear()
            raise ConnectionError("after the answer")
        return str(result.final_output)

    run = task("writer", max_retries=1, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    drain()
    row = Activity.objects.get(agent_id=run.agent_id)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Answer 1", 2), row.error
    assert len(model.calls) == 1
    assert AgentCall.objects.filter(activity=row, kind=CallKind.MODEL).count() == 1


def test_an_unavailable_cache_is_empty() -> None:
    model = Counting()
    backend = f"{__name__}.OutOfOrder"
    with override_settings(CACHES={"default": {"BACKEND": backend}, "agentexec": {"BACKEND": backend}}):
        assert answers(define(model)) == ["Answer 1", "Answer 2"]


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: ModelCache(ttl=0), r"ModelCache\(ttl=0\)"),
        (lambda: ModelCache(ttl="1d"), r"ModelCache\(ttl='1d'\)"),  # type: ignore[arg-type]
        (lambda: ModelCache(tenant=[""]), r"ModelCache\(tenant=\[''\]\) must be a list .* none of them empty"),
        (lambda: ModelCache(tenant="org"), r"ModelCache\(tenant='org'\) must be a list"),
        (lambda: OpenAIRunner(UUID(int=1), cache="yes"), r"OpenAIRunner\(cache='yes'\)"),  # type: ignore[arg-type]
        (lambda: OpenAIRunner(UUID(int=1), cache=True, durable=False), "needs a durable run"),
    ],
)
def test_invalid_options_are_refused(create: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        create()


def test_an_unknown_alias_is_refused() -> None:
    (error,) = answers(define(Counting(), ModelCache(using="nowhere")), {})

    assert "is 'nowhere', which CACHES does not contain" in error


def test_cached_answers_count_as_calls_without_cost() -> None:
    ModelPrice.objects.create(pattern="*", valid_from="2020-01-01", input_price=1, output_price=1)
    answers(define(Counting()))

    rows = AgentCall.objects.billed().filter(is_cached=True)
    assert [row.cost for row in rows] == [Decimal(0)]
    assert rows.unpriced().count() == 0
