"""Models of agents wait for their limits: in their slot, or suspended without a repeated call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID

import httpx2
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    Model,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    function_tool,
)
from agents.testing import ScriptedModel
from django.utils import timezone
from openai import AsyncOpenAI, RateLimitError

from django_agentexec import Attempt, OpenAIRunner, QueueUnavailable, task
from django_agentexec.limits import Bucket, MemoryLimits, Usage, get_store, limits, note_headers
from django_agentexec.limits.base import Reservation, Wait
from django_agentexec.limits.bookkeeping import bookkeeping
from django_agentexec.models import Activity, AgentCall, Status
from django_agentexec.runners.openai import limited as limited_model
from django_agentexec.runners.openai.limited import OUTPUT_TOKENS, LimitedModel, limited
from django_agentexec.testing import drain
from tests.support.contexts import Empty
from tests.support.limit_stores import Clock, resumed, set_clock
from tests.support.model_server import Answer, Call, ModelServer
from tests.support.scripted_models import call, model, say

pytestmark = pytest.mark.django_db(transaction=True)

DONE: Counter[str] = Counter()
Limit = Callable[..., None]


@pytest.fixture
def limit(settings: Any, clock: Clock) -> Limit:
    """Limit all scripted models; any wait suspends."""

    def configure(**value: Any) -> None:
        settings.AGENTEXEC = {
            **settings.AGENTEXEC,
            "MODEL_LIMIT_WAIT": value.pop("wait", 0),
            "MODEL_LIMITS": {"Scripted*": {"margin": 0, **value}},
        }
        set_clock(memory(), clock)

    return configure


@pytest.fixture(autouse=True)
def queue_in_memory(settings: Any) -> None:
    DONE.clear()
    settings.AGENTEXEC = {"QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"}


def memory() -> MemoryLimits:
    store = get_store()
    assert isinstance(store, MemoryLimits)
    return store


def usage() -> Usage:
    bookkeeping.flush(10)
    return usage_now()


def usage_now() -> Usage:
    return get_store().usage(Bucket("Scripted*", limits().all[0]))


@function_tool
def look_up(name: str) -> str:
    """Look a name up."""
    DONE[name] += 1
    return f"{name} is fine"


def enqueue(handler: Callable[..., Any], **options: Any) -> Activity:
    handle = task("clerk", max_retries=0)(handler).enqueue(Empty(), **options)
    drain()
    return Activity.objects.get(pk=handle.agent_id)


def test_a_long_wait_suspends_and_repeats_no_call(limit: Limit, clock: Clock) -> None:
    limit(rpm=1)
    scripted = model([call("look_up", "1", name="Acme")], say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[look_up])
        return str((await OpenAIRunner(agent_id).run(agent, "Check.")).final_output)

    before = timezone.now()
    row = enqueue(handler)
    assert row.waiting_for == "limit"
    assert row.run_after is not None
    assert before + timedelta(seconds=60) <= row.run_after <= timezone.now() + timedelta(seconds=60)
    assert (len(scripted.calls), DONE["Acme"]) == (1, 1)
    clock.forward(60)

    row = resumed(row)

    assert (row.status, row.result, row.attempt, row.retries) == (Status.COMPLETE, "Fine.", 1, 0)
    assert (len(scripted.calls), DONE["Acme"]) == (2, 1)
    assert usage().requests == 1


def test_an_activity_that_resumes_too_early_waits_again(limit: Limit, clock: Clock) -> None:
    limit(rpm=1)
    scripted = model([call("look_up", "1", name="Acme")], say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[look_up])
        return str((await OpenAIRunner(agent_id).run(agent, "Check.")).final_output)

    row = resumed(enqueue(handler))
    assert row.waiting_for == "limit"
    assert usage().waiting == 1
    clock.forward(60)

    assert resumed(row).status == Status.COMPLETE
    assert usage().waiting == 0


def test_a_short_wait_stays_in_the_slot(limit: Limit) -> None:
    limit(rpm=1, window=0.2, wait=30)
    set_clock(memory(), time.monotonic)
    scripted = model([call("look_up", "1", name="Acme")], say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[look_up])
        return str((await OpenAIRunner(agent_id).run(agent, "Check.")).final_output)

    row = enqueue(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Fine.")


def test_an_answer_without_a_usage_keeps_the_estimate(limit: Limit) -> None:
    limit(tpm=100_000)
    scripted = model(say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted), "Check.")).final_output)

    enqueue(handler)

    assert OUTPUT_TOKENS < usage().tokens < OUTPUT_TOKENS + 20


def test_other_models_have_no_limit(settings: Any) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": {"gpt-5*": {"rpm": 1}}}
    scripted = model(say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted)
        await OpenAIRunner(agent_id).run(agent, "Check.")
        return "done"

    with patch.object(MemoryLimits, "reserve", side_effect=AssertionError("a round trip")):
        assert enqueue(handler).status == Status.COMPLETE


def test_without_limits_models_are_not_wrapped() -> None:
    scripted = model()
    assert limited(scripted) is scripted


def test_the_models_of_a_model_that_chooses_are_limited_one_by_one(limit: Limit) -> None:
    limit(rpm=1)

    class Choosing(ScriptedModel):
        def with_models(self, wrap: Callable[[Model], Model]) -> list[Model]:
            return [wrap(model()), wrap(model())]

    wrapped: Any = limited(Choosing([]))

    assert [type(each) for each in wrapped] == [LimitedModel, LimitedModel]
    assert limited(wrapped[0]) is wrapped[0]


def test_parallel_tools_guardrails_and_nested_agents_end_before_the_suspension(limit: Limit, clock: Clock) -> None:
    """Two helpers run in parallel: the first uses the last grant, and the other suspends the activity."""
    limit(rpm=3)
    boss_model = model([call("ask_one", "1", input="x"), call("ask_two", "2", input="x")], say("end"))

    class ScriptedSlowly(ScriptedModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            for _ in range(50):  # the other helper has its turn meanwhile
                await asyncio.sleep(0.001)
            return await super().get_response(*args, **kwargs)

    one, two, guard = ScriptedSlowly([say("helped")]), ScriptedSlowly([say("helped")]), model(say("harmless"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        async def check(ctx: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
            seen = await Runner.run(Agent("Guard", model=guard), "Is it harmless?")
            return GuardrailFunctionOutput(output_info=seen.final_output, tripwire_triggered=False)

        boss = Agent(
            "Boss",
            model=boss_model,
            tools=[
                Agent("One", model=one).as_tool("ask_one", "Asks."),
                Agent("Two", model=two).as_tool("ask_two", "Asks."),
            ],
            input_guardrails=[InputGuardrail(check)],
        )
        return str((await OpenAIRunner(agent_id).run(boss, "Go.")).final_output)

    row = enqueue(handler)
    assert row.waiting_for == "limit"
    assert len(one.calls) + len(two.calls) == 1
    states = set(AgentCall.objects.filter(activity=row, kind="model", agent__in=["One", "Two"]).values_list("state"))
    assert states == {("done",), ("failed",)}
    clock.forward(60)

    row = resumed(row)

    assert (row.status, row.result) == (Status.COMPLETE, "end")
    assert [len(each.calls) for each in (boss_model, one, two, guard)] == [2, 1, 1, 1]


def test_the_model_call_beside_a_guardrail_ends_before_the_suspension(limit: Limit, clock: Clock) -> None:
    limit(rpm=1)
    waits = asyncio.Event()

    class ScriptedSlowly(ScriptedModel):
        async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            await waits.wait()
            for _ in range(50):
                await asyncio.sleep(0.001)
            async for event in super().stream_response(*args, **kwargs):
                yield event

    boss_model, guard = ScriptedSlowly([say("end")]), model(say("harmless"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        async def check(ctx: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
            while not waits.is_set() and usage_now().requests == 0:  # noqa: ASYNC110  # the agent's model is called first
                await asyncio.sleep(0.001)
            waits.set()
            seen = await Runner.run(Agent("Guard", model=guard), "Is it harmless?")
            return GuardrailFunctionOutput(output_info=seen.final_output, tripwire_triggered=False)

        boss = Agent("Boss", model=boss_model, input_guardrails=[InputGuardrail(check)])
        return str((await OpenAIRunner(agent_id).run(boss, "Go.")).final_output)

    row = enqueue(handler)
    assert row.waiting_for == "limit"
    assert (len(boss_model.calls), len(guard.calls)) == (1, 0)
    assert AgentCall.objects.get(activity=row, kind="model", agent="Boss").state == "done"
    clock.forward(60)

    row = resumed(row)

    assert (row.status, row.result) == (Status.COMPLETE, "end")
    assert (len(boss_model.calls), len(guard.calls)) == (1, 1)


def test_runs_side_by_side_end_before_the_suspension(limit: Limit, clock: Clock) -> None:
    limit(rpm=1)
    go = asyncio.Event()

    class ScriptedSlowly(ScriptedModel):
        async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            await go.wait()
            async for event in super().stream_response(*args, **kwargs):
                yield event

    scripted = ScriptedSlowly([say("one"), say("two")])

    async def handler(agent_id: UUID, context: Empty) -> list[str]:
        runner = OpenAIRunner(agent_id)
        asyncio.get_running_loop().call_later(0.05, go.set)
        results = await asyncio.gather(
            runner.run(Agent("One", model=scripted), "Go.", key="one"),
            runner.run(Agent("Two", model=scripted), "Go.", key="two"),
        )
        return [str(each.final_output) for each in results]

    row = enqueue(handler)
    assert row.waiting_for == "limit"
    assert AgentCall.objects.filter(activity=row, kind="model", state="done").count() == 1
    clock.forward(60)

    row = resumed(row)

    assert (row.status, sorted(row.result)) == (Status.COMPLETE, ["one", "two"])
    assert len(scripted.calls) == 2


def test_a_run_that_is_not_recorded_waits_in_its_slot(
    limit: Limit, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(rpm=1)
    scripted = model([call("look_up", "1", name="Acme")], say("Fine."))
    reserve, waits = get_store().reserve, []

    def pass_a_minute(*args: Any) -> Reservation | Wait:
        reply = reserve(*args)
        if isinstance(reply, Wait):
            waits.append(reply)
            clock.forward(60)
        return reply

    monkeypatch.setattr(get_store(), "reserve", pass_a_minute)

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[look_up])
        result = await OpenAIRunner(agent_id, durable=False).run(agent, "Check.")
        assert result.last_agent is agent
        assert all(item.agent is agent for item in result.new_items)
        return str(result.final_output)

    row = enqueue(handler)

    assert (row.status, row.result, row.waiting_for) == (Status.COMPLETE, "Fine.", "")
    assert (len(scripted.calls), DONE["Acme"], len(waits)) == (2, 1, 1)
    assert usage().requests == 1


def test_all_models_of_a_run_that_is_not_recorded_have_limits(limit: Limit) -> None:
    limit(rpm=100)

    class Provider:
        def get_model(self, name: str | None) -> Model:
            return model(say("named"))

        async def aclose(self) -> None: ...

    async def handler(agent_id: UUID, context: Empty) -> str:
        helper = Agent("Helper", model=model(say("helped")))
        closer = Agent("Closer", model=model(say("end")))
        boss = Agent(
            "Boss",
            model=model([call("help", "1", input="x")], [call("transfer_to_closer", "2")]),
            tools=[helper.as_tool("help", "Helps.")],
            handoffs=[closer],
        )
        runner = OpenAIRunner(agent_id, durable=False)
        result = await runner.run(boss, "Go.")
        assert result.last_agent is closer
        await runner.run(Agent("Named", model="any"), "Go.", run_config=RunConfig(model_provider=Provider()))  # type: ignore[arg-type]
        return str(result.final_output)

    row = enqueue(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "end"), row.error
    assert usage().requests == 5


def test_approvals_of_a_run_that_is_not_recorded_work_with_limits(limit: Limit) -> None:
    limit(rpm=100)
    scripted = model([call("send", "1", name="Acme")], say("Sent."))

    @function_tool(needs_approval=True)
    def send(name: str) -> str:
        """Send."""
        DONE[name] += 1
        return "sent"

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[send])
        runner = OpenAIRunner(agent_id, durable=False)
        result = await runner.run(agent, "Go.")
        state = result.to_state()
        for item in result.interruptions:
            state.approve(item)
        return str((await runner.run(agent, state)).final_output)

    row = enqueue(handler)

    assert (row.status, row.result, DONE["Acme"]) == (Status.COMPLETE, "Sent.", 1), row.error


def refusal(**headers: str) -> RateLimitError:
    response = httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://test"))
    return RateLimitError("slow down", response=response, body={"error": {"code": headers.get("code", "slow")}})


def test_a_refusal_closes_the_limit_and_the_call_is_made_again(limit: Limit, clock: Clock) -> None:
    limit(rpm=100, tpm=100_000)
    scripted = model(refusal(**{"retry-after": "20"}), say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted), "Check.")).final_output)

    row = enqueue(handler)
    assert row.waiting_for == "limit"
    assert usage().closed == pytest.approx(20)
    assert usage().tokens == 0
    clock.forward(20)

    row = resumed(row)

    assert (row.status, row.result, row.retries) == (Status.COMPLETE, "Fine.", 0)


def test_an_exhausted_quota_is_raised(limit: Limit) -> None:
    limit(rpm=100)
    scripted = model(refusal(code="insufficient_quota"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted), "Check.")).final_output)

    row = enqueue(handler)

    assert row.status == Status.ERROR
    assert "slow down" in row.error
    assert usage().closed == 0


@pytest.mark.parametrize("durable", [True, False])
def test_retries_of_the_client_need_grants(settings: Any, durable: bool) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": {"gpt-test": {"rpm": 100, "tpm": 100_000}}}
    ask = Answer(calls=[Call("help", {"input": "x"})])
    answers = [Answer(status=500), ask, Answer(status=503), Answer("helped"), Answer("Fine.")]

    async def handler(agent_id: UUID, context: Empty) -> str:
        client = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=1)
        gpt = OpenAIChatCompletionsModel("gpt-test", client)
        helper = Agent("Helper", model=gpt)
        agent = Agent("Clerk", model=gpt, tools=[helper.as_tool("help", "Helps.")])
        return str((await OpenAIRunner(agent_id, durable=durable).run(agent, "Go.")).final_output)

    with ModelServer(answers) as server, patch.object(limited_model, "FIRST_BACKOFF", 0.0):
        row = enqueue(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Fine."), row.error
    assert len(server.requests) == 5
    bookkeeping.flush(10)
    found = get_store().usage(Bucket("gpt-test", limits().all[0]))
    assert (found.requests, found.tokens) == (5, 3 * 120)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("is_used_up", [True, False])
def test_headers_of_an_answer_close_a_limit_that_is_used_up(settings: Any, stream: bool, is_used_up: bool) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": {"gpt-test": {"rpm": 100}}}
    closed: list[float] = []
    headers = {
        "x-ratelimit-remaining-requests": "0" if is_used_up else "1",
        "x-ratelimit-reset-requests": "60s",
        "x-ratelimit-limit-requests": "2",
    }

    async def handler(agent_id: UUID, context: Empty) -> str:
        client = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)
        inner = OpenAIChatCompletionsModel("gpt-test", client)
        result = await OpenAIRunner(agent_id, durable=stream).run(Agent("Clerk", model=inner), "Go.")
        closed.append(get_store().usage(Bucket("gpt-test", limits().all[0])).closed)
        return str(result.final_output)

    with ModelServer([Answer("Fine.", headers=headers)]) as server:
        row = enqueue(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Fine."), row.error
    assert closed == [pytest.approx(30, abs=2) if is_used_up else 0]


def test_an_endpoint_closes_a_shared_limit_for_itself_only(settings: Any) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": {"gpt-test": {"rpm": 100}}, "MODEL_LIMIT_WAIT": 0}
    used_up = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h"}

    def ask(server: ModelServer) -> Activity:
        async def handler(agent_id: UUID, context: Empty) -> str:
            client = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)
            agent = Agent("Clerk", model=OpenAIChatCompletionsModel("gpt-test", client))
            return str((await OpenAIRunner(agent_id).run(agent, "Go.")).final_output)

        return enqueue(handler)

    with ModelServer([Answer("Fine.", headers=used_up)]) as of_tenant, ModelServer([Answer("Good.")]) as shared:
        assert ask(of_tenant).result == "Fine."
        assert ask(of_tenant).waiting_for == "limit"
        assert ask(shared).result == "Good."


def test_a_hook_of_the_clients_http_client_stays() -> None:
    seen: list[int] = []

    async def own_hook(response: Any) -> None:
        seen.append(response.status_code)

    http_client = httpx2.AsyncClient(event_hooks={"response": [own_hook]})
    client = AsyncOpenAI(base_url="http://127.0.0.1:1", api_key="test", http_client=http_client)
    LimitedModel(OpenAIChatCompletionsModel("gpt-test", client))

    assert http_client.event_hooks["response"] == [own_hook, note_headers]


def test_a_client_without_retries_makes_one_request(settings: Any) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": {"gpt-test": {"rpm": 100}}}

    async def handler(agent_id: UUID, context: Empty) -> str:
        client = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)
        agent = Agent("Clerk", model=OpenAIChatCompletionsModel("gpt-test", client))
        return str((await OpenAIRunner(agent_id).run(agent, "Go.")).final_output)

    with ModelServer([Answer(status=500)] * 3) as server:
        row = enqueue(handler)

    assert row.status == Status.ERROR
    assert len(server.requests) == 1


def test_each_tenant_may_have_its_own_limit(limit: Limit) -> None:
    limit(rpm=1, per="organization_id")

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(Agent("Clerk", model=model(say("Fine."))), "Go.")).final_output)

    assert enqueue(handler, metadata={"organization_id": 1}).status == Status.COMPLETE
    assert enqueue(handler, metadata={"organization_id": 2}).status == Status.COMPLETE
    assert enqueue(handler, metadata={"organization_id": 1}).waiting_for == "limit"


def test_calls_wait_while_the_store_is_unavailable(limit: Limit) -> None:
    limit(rpm=100)
    scripted = model(say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted), "Check.")).final_output)

    def fail(*args: Any) -> None:
        raise QueueUnavailable("no answer")

    with patch.object(MemoryLimits, "reserve", fail):
        row = enqueue(handler)
        assert row.waiting_for == "limit"
        assert len(scripted.calls) == 0

    assert resumed(row).status == Status.COMPLETE


def test_a_canceled_call_gives_up_its_place(limit: Limit) -> None:
    limit(rpm=1)

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> str:
        runner = OpenAIRunner(agent_id, durable=False)
        await runner.run(Agent("Clerk", model=model(say("one"))), "Go.")
        waiting = asyncio.ensure_future(runner.run(Agent("Clerk", model=model(say("two"))), "Go."))
        while usage().waiting == 0:  # noqa: ASYNC110  # of another thread
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        return "canceled"

    assert enqueue(handler).result == "canceled"
    assert usage().waiting == 0


def test_a_grant_that_arrives_after_a_cancellation_is_given_back(limit: Limit) -> None:
    limit(rpm=1, concurrency=1)
    asked, may_reply = threading.Event(), threading.Event()
    reserve = MemoryLimits.reserve

    def reserve_slowly(*args: Any) -> Any:
        asked.set()
        may_reply.wait(60)
        return reserve(*args)

    async def handler(agent_id: UUID, context: Empty) -> str:
        scripted = model(say("never"))
        waiting = asyncio.ensure_future(OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted), "Go."))
        assert await asyncio.to_thread(asked.wait, 60)
        waiting.cancel()
        await asyncio.wait([waiting])
        may_reply.set()
        second = Agent("Clerk", model=model(say("fine")))
        async with asyncio.timeout(30):
            result = await OpenAIRunner(agent_id, durable=False).run(second, "Go.")
        assert len(scripted.calls) == 0
        return str(result.final_output)

    with patch.object(MemoryLimits, "reserve", reserve_slowly):
        row = enqueue(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "fine"), row.error
    assert (usage().requests, usage().in_progress) == (1, 0)
