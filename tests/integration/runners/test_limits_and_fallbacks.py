"""Limits, budgets, fallbacks, breakers and the cache together: each call passes each of them once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    ModelSettings,
    RunConfig,
    Runner,
    function_tool,
)
from agents.testing import ScriptedModel, function_call
from agents.tool_context import ToolContext

from django_agentexec import OpenAIRunner, ResilientModel, concurrency, task
from django_agentexec.activity.resumption import resume
from django_agentexec.budgets.applicable import table
from django_agentexec.limits import Bucket, get_store, limits
from django_agentexec.limits.bookkeeping import bookkeeping
from django_agentexec.models import Activity, AgentCall, CallKind, Status
from django_agentexec.queues import get_queue
from django_agentexec.queues.breakers import BreakerState
from django_agentexec.resilience import breakers
from django_agentexec.resilience.breakers import BreakerCall
from django_agentexec.resilience.options import breaker_options
from django_agentexec.tasks import registry
from django_agentexec.testing import drain
from tests.support.breaker_states import end_pause, note_call, states
from tests.support.budget_rows import assert_nothing_leaks, budget, set_price, spent
from tests.support.contexts import Empty
from tests.support.limit_stores import Clock, resumed, set_clock
from tests.support.scripted_models import PAID_SETTINGS, paid_model, say

pytestmark = pytest.mark.django_db(transaction=True)

Limit = Callable[..., None]


@pytest.fixture(autouse=True)
def memory(settings: Any) -> Iterator[None]:
    """Use queue, limits and breakers in memory; the first failure opens a breaker."""
    settings.AGENTEXEC = {
        "QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue",
        "MODEL_BREAKER": {"failures": 1, "window": 60, "open": 30, "rate": 0.1},
    }
    breakers.reset()
    table.reset()
    set_price("*")
    yield
    table.reset()


@pytest.fixture(autouse=True)
def nothing_leaks(memory: None) -> Iterator[None]:
    """At the end of each test nothing is reserved, and activities cost what their calls have cost."""
    yield
    assert_nothing_leaks()


@pytest.fixture
def limit(settings: Any, clock: Clock) -> Limit:
    """Limit the model `big`; by default any wait suspends."""

    def configure(pattern: str = "big", wait: float = 0, **value: Any) -> None:
        settings.AGENTEXEC = {
            **settings.AGENTEXEC,
            "MODEL_LIMIT_WAIT": wait,
            "MODEL_LIMITS": {pattern: {"margin": 0, **value}},
        }
        set_clock(get_store(), clock)

    return configure


def requests() -> int:
    bookkeeping.flush(10)
    [only] = limits().all
    return get_store().usage(Bucket(only.pattern, only)).requests


def model(name: str, *steps: Any) -> ScriptedModel:
    return paid_model(*steps, name=name)


def agent(*models: Any, name: str = "Clerk", timeout: float = 60.0, **options: Any) -> Agent[Any]:
    used = ResilientModel(list(models), timeout=timeout)
    return Agent(name, **{"model": used, "model_settings": PAID_SETTINGS, **options})


def run(handler: Callable[..., Any], **options: Any) -> Activity:
    handle = task("clerk", max_retries=0, **options)(handler).enqueue(Empty())
    drain()
    return Activity.objects.get(pk=handle.agent_id)


def two_runs(used: Agent[Any]) -> Callable[..., Any]:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        return " ".join([str((await runner.run(used, text)).final_output) for text in ("One.", "Two.")])

    return handler


def test_a_wait_for_a_limit_is_no_outage(limit: Limit, clock: Clock) -> None:
    limit(rpm=1)
    ledger = budget("1")
    big, small = model("big", say("one"), say("two")), model("small")

    row = run(two_runs(agent(big, small)))
    assert row.waiting_for == "limit"
    assert (len(big.calls), len(small.calls)) == (1, 0)
    assert "open" not in states().values()
    assert not AgentCall.objects.filter(call_id__startswith="try").exists()
    assert spent(ledger) == (Decimal("0.03"), 0)
    clock.forward()

    row = resumed(row)

    assert (row.result, row.cost, len(small.calls)) == ("one two", Decimal("0.06"), 0)
    assert spent(ledger) == (Decimal("0.06"), 0)


def test_a_wait_for_a_limit_releases_the_probe_of_a_breaker(limit: Limit, clock: Clock) -> None:
    limit(rpm=1)
    big, small = model("big", say("one"), say("two")), model("small")

    half_open: list[bool] = []

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        first = await runner.run(agent(big), "One.")
        if not half_open:
            half_open.append(True)
            note_call("big")
            end_pause("big")
        second = await runner.run(agent(big, small), "Two.")
        return f"{first.final_output} {second.final_output}"

    row = run(handler)
    assert row.waiting_for == "limit"
    permit = get_queue().breakers.acquire("big", breaker_options(), "another", 60.0)
    assert permit.probe == "another"  # the place of the probe is free
    get_queue().breakers.release("big", "another")
    clock.forward()

    row = resumed(row)

    assert (row.result, len(small.calls)) == ("one two", 0)
    assert states().get("big", "closed") == BreakerState.CLOSED.value


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_wait_in_the_slot_does_not_count_against_the_timeout(
    limit: Limit, clock: Clock, durable: bool, nested: bool
) -> None:
    """Nested agents are not streamed, so that the whole answer has a timeout."""
    limit(rpm=1, wait=300)
    big, small = model("big", say("one"), say("two")), model("small")
    inner = agent(big, small, timeout=0.5)
    boss = model("boss", [function_call("ask", {"input": "x"}, call_id="1")], say("end"))
    used = Agent("Boss", model=boss, tools=[inner.as_tool("ask", "Asks.")]) if nested else inner

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, durable=durable)
        await runner.run(inner, "One.")
        asyncio.get_running_loop().call_later(0.9, clock.forward)
        return str((await runner.run(used, "Two.")).final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "end" if nested else "two"), row.error
    assert (len(big.calls), len(small.calls)) == (2, 0)
    assert "open" not in states().values()


def test_a_model_that_hangs_after_a_wait_has_its_timeout(limit: Limit, clock: Clock) -> None:
    limit(rpm=1, wait=300)

    class Hanging(ScriptedModel):
        model = "big"

        async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.Event().wait()
            yield

    small = model("small", say("fine"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        await runner.run(agent(model("big", say("one"))), "One.")
        asyncio.get_running_loop().call_later(0.1, clock.forward)
        return str((await runner.run(agent(Hanging([]), small, timeout=0.2), "Two.")).final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "fine"), row.error
    assert AgentCall.objects.get(call_id="try 1").error == "TimeoutError: No event of the stream for 0.2 s."


def test_the_limit_of_a_fallback_suspends(limit: Limit, clock: Clock) -> None:
    limit("small", rpm=1)
    ledger = budget("1")
    big = model("big", ConnectionError("down"), say("two"))
    small = model("small", say("one"), say("never"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        first = await runner.run(agent(small), "One.")
        return f"{first.final_output} {(await runner.run(agent(big, small), 'Two.')).final_output}"

    row = run(handler)
    assert (row.waiting_for, len(big.calls), len(small.calls)) == ("limit", 1, 1)
    assert states().get("small", "closed") == "closed"
    assert spent(ledger) == (Decimal("0.03"), 0)
    clock.forward()
    get_queue().breakers.reset("big")

    assert resumed(row).result == "one two"
    assert spent(ledger) == (Decimal("0.06"), 0)


@pytest.mark.parametrize("durable", [True, False])
def test_every_call_passes_budget_breaker_and_limit_once(limit: Limit, durable: bool) -> None:
    limit("*", rpm=1_000)
    ledger = budget("100")
    guard, closer = model("guard", say("ok"), say("ok")), model("closer", say("end"), say("end"))
    helper = model("helper", say("helped"), say("helped"))
    ask = [function_call("help", {"input": "x"}, call_id="1")]
    leave = [function_call("transfer_to_closer", {}, call_id="2")]
    begun: list[str] = []
    begin = BreakerCall.begin

    async def counted(self: BreakerCall) -> Any:
        begun.append(self.name)
        return await begin(self)

    def boss(name: str) -> Agent[Any]:
        async def check(ctx: Any, agent_: Any, input: Any) -> GuardrailFunctionOutput:
            await Runner.run(agent(guard, name="Guard"), f"Is {name} harmless?")
            return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

        return agent(
            model(name, ask, leave),
            name=name,
            tools=[agent(helper, name="Helper").as_tool("help", "Helps.")],
            handoffs=[agent(closer, name="closer")],
            input_guardrails=[InputGuardrail(check)],
        )

    async def handler(agent_id: UUID, context: Empty) -> list[str]:
        runner = OpenAIRunner(agent_id, durable=durable)
        results = await asyncio.gather(
            runner.run(boss("a"), "Go.", key="a" if durable else None),
            runner.run(boss("b"), "Go.", key="b" if durable else None),
        )
        return [str(each.final_output) for each in results]

    with patch.object(BreakerCall, "begin", counted):
        row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, ["end", "end"]), row.error
    expected = ["a", "a", "b", "b", "closer", "closer", "guard", "guard", "helper", "helper"]
    assert sorted(begun) == expected
    assert requests() == len(expected)
    if durable:
        names = AgentCall.objects.filter(kind=CallKind.MODEL).values_list("name", flat=True)
        assert sorted(names) == expected
        assert spent(ledger) == (Decimal("0.30"), 0)
        assert row.cost == Decimal("0.30")


@pytest.mark.parametrize("durable", [True, False])
def test_a_configuration_that_a_tool_passes_on_wraps_no_model_twice(limit: Limit, durable: bool) -> None:
    limit(rpm=1_000)
    ledger = budget("100")

    class Provider:
        def get_model(self, name: str | None) -> Any:
            return model("big", say("helped"))

        async def aclose(self) -> None: ...

    async def handler(agent_id: UUID, context: Empty) -> str:
        @function_tool
        async def ask(ctx: ToolContext[Any]) -> str:
            """Ask."""
            assert ctx.run_config is not None
            runner = OpenAIRunner(agent_id, models=["big"])
            config = RunConfig(model_provider=ctx.run_config.model_provider)
            inner = Agent[Any]("Inner", model_settings=PAID_SETTINGS)
            return str((await runner.run(inner, "Go.", run_config=config)).final_output)

        boss = model("boss", [function_call("ask", {}, call_id="1")], say("end"))
        outer = Agent[Any]("Boss", model=boss, model_settings=PAID_SETTINGS, tools=[ask])
        config = RunConfig(model_provider=Provider())  # type: ignore[arg-type]
        return str((await OpenAIRunner(agent_id, durable=durable).run(outer, "Go.", run_config=config)).final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "end"), row.error
    assert requests() == 1
    assert AgentCall.objects.filter(kind=CallKind.MODEL, name="big").count() == 1
    assert spent(ledger) == (Decimal("0.09" if durable else "0.03"), 0)
    assert row.cost == Decimal("0.09")
    if not durable:
        row.delete()  # the calls of the outer run have no rows


def test_cached_and_replayed_answers_reserve_nothing_and_pass_no_limit(limit: Limit) -> None:
    limit(rpm=1)
    ledger = budget("0.03")
    big = model("big", say("one"), say("never"))
    attempts: list[int] = []

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, cache=True)
        settings = ModelSettings(max_tokens=1_000, temperature=0)
        results = [await runner.run(agent(big, model_settings=settings), "Go.") for _ in range(2)]
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("after both runs")
        return " ".join(str(each.final_output) for each in results)

    task("clerk", max_retries=1, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    drain()
    row = Activity.objects.get()

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "one one", 2), row.error
    assert (len(big.calls), requests()) == (1, 1)
    assert (row.cost, spent(ledger)) == (Decimal("0.03"), (Decimal("0.03"), 0))
    assert AgentCall.objects.filter(is_cached=True).count() == 1


def test_a_wait_occupies_no_place_of_a_concurrency_key_and_can_be_paused(limit: Limit, clock: Clock) -> None:
    limit(rpm=1)
    big = model("big", say("one"), say("two"), say("three"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        if len(waits) == 1:
            waits.append("other")
            return "other"
        waits.append("first")
        return await two_runs(agent(big))(agent_id, context)

    waits: list[str] = []
    row = run(handler, concurrency_key="all", max_concurrency=1)
    assert row.waiting_for == "limit"

    other = registry.get("clerk").enqueue(Empty())
    drain()
    assert Activity.objects.get(pk=other.agent_id).result == "other"  # the place of the first is free

    clock.forward()
    assert concurrency.pause("task", "clerk")
    assert resume([row.agent_id]) == 1
    drain()
    assert Activity.objects.get(pk=row.agent_id).status == Status.QUEUED

    assert concurrency.resume("task", "clerk")
    drain()
    row = Activity.objects.get(pk=row.agent_id)
    assert (row.status, row.result, len(big.calls)) == (Status.COMPLETE, "one two", 2)
