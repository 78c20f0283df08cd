"""`ResilientModel` against real HTTP servers: one complete answer, whatever happens to the first model."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from agents import (
    Agent,
    Model,
    ModelRetrySettings,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIProvider,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    WebSearchTool,
    function_tool,
    retry_policies,
)
from agents.testing import ScriptedModel, assistant_message
from django.test import override_settings
from openai import AsyncOpenAI
from openai.types.responses import ResponseFailedEvent
from pydantic import BaseModel

from django_agentexec import (
    InvalidOption,
    ModelCandidate,
    ModelsUnavailable,
    OpenAIRunner,
    ResilientModel,
    activity,
    task,
)
from django_agentexec.models import Activity, AgentCall, CallKind, CallState, ModelPrice, Status
from django_agentexec.queues import get_queue
from django_agentexec.queues.breakers import BreakerState
from django_agentexec.resilience import breakers
from django_agentexec.resilience.options import breaker_options
from django_agentexec.runners.openai.candidates import PARAMETERS, PROMPT_CACHE_KEY
from django_agentexec.testing import drain, memory_queue
from tests.support.breaker_states import end_pause, note_call, states
from tests.support.contexts import Empty
from tests.support.model_server import Answer, Call, ModelServer, Tokens
from tests.support.text_client import TextClient

pytestmark = pytest.mark.django_db(transaction=True)

LONG = " ".join(f"word{number}" for number in range(40))
APIS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}


class Verdict(BaseModel):
    is_fine: bool


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    breakers.reset()
    with memory_queue():
        yield


@contextmanager
def servers(*scripts: list[Answer]) -> Iterator[list[ModelServer]]:
    """Start one server per script."""
    started = [ModelServer(script) for script in scripts]
    for server in started:
        server.__enter__()
    try:
        yield started
    finally:
        for server in started:
            server.__exit__(None, None, None)


def model(server: ModelServer, name: str, api: str = "chat") -> Model:
    client = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)
    return APIS[api](name, client)


def run(handler: Callable[..., Any], **options: Any) -> Activity:
    options = {"max_retries": 0, "backoff": lambda *_: 0.0, **options}
    task("writer", **options)(handler).enqueue(Empty())
    drain()
    return Activity.objects.get()


def answer_of(models: list[Any], prompt: str = "Go.", **options: Any) -> Activity:
    """Run an agent with a `ResilientModel` in a worker, with streamed text."""

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Writer", model=ResilientModel(models, **options))
        return str((await OpenAIRunner(agent_id, stream=True).run(agent, prompt)).final_output)

    return run(handler)


def calls() -> list[tuple[str, str, str]]:
    rows = AgentCall.objects.filter(kind=CallKind.MODEL).order_by("id")
    return [(row.name, row.call_id, str(row.state)) for row in rows]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_next_model_answers_after_an_error_of_the_server(api: str, status: int) -> None:
    with servers([Answer(status=status)], [Answer("Fine.")]) as (first, second):
        row = answer_of([model(first, "big", api), model(second, "small", api)])

    assert (row.status, row.result) == (Status.COMPLETE, "Fine."), row.error
    assert calls() == [("small", "", "done"), ("big", "try 1", "failed")]
    assert "500" in AgentCall.objects.get(call_id="try 1").error or status != 500
    assert TextClient(row.agent_id).read() == "Fine."


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_the_next_model_answers_after_an_exhausted_quota(code: str) -> None:
    with servers([Answer(status=403, code=code)], [Answer("Fine.")]) as (first, second):
        row = answer_of([model(first, "big"), model(second, "small")])

    assert row.result == "Fine."


def test_the_next_model_answers_if_no_server_is_there() -> None:
    with servers([], [Answer("Fine.")]) as (first, second):
        gone = model(first, "big")
        first.__exit__(None, None, None)
        row = answer_of([gone, model(second, "small")])

    assert row.result == "Fine."
    assert "APIConnectionError" in AgentCall.objects.get(call_id="try 1").error


@pytest.mark.parametrize("api", APIS)
def test_the_next_model_answers_if_one_hangs(api: str) -> None:
    never = threading.Event()
    with servers([Answer("Late.", when=never)], [Answer("Fine.")]) as (first, second):
        hanging = ModelCandidate(model(first, "big", api), timeout=0.2)
        row = answer_of([hanging, model(second, "small", api)])
        never.set()

    assert row.result == "Fine."
    assert AgentCall.objects.get(call_id="try 1").error == "TimeoutError: No event of the stream for 0.2 s."


@pytest.mark.parametrize("api", APIS)
def test_a_stream_that_is_cut_after_20_tokens_is_replaced_by_one_complete_answer(api: str) -> None:
    seen = threading.Event()
    followers: list[TextClient] = []
    texts: list[str] = []

    async def handler(agent_id: UUID, context: Empty) -> str:
        followers.append(TextClient(agent_id))

        async def follow(event: Any) -> None:
            if getattr(getattr(event, "data", None), "delta", "").startswith("word19"):
                await activity.aflush_stream()
                texts.append(followers[0].read())
                seen.set()

        models = ResilientModel([model(first, "big", api), model(second, "small", api)])
        agent = Agent("Writer", model=models, tools=[nothing])
        result = await OpenAIRunner(agent_id, stream=True).run_streamed(agent, "Go.", forwarder=follow)
        return str(result.final_output)

    cut = Answer(LONG, cut_after=20, cut_when=seen)
    with servers([cut], [Answer("A whole new answer.")]) as (first, second):
        row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "A whole new answer."), row.error
    assert texts == [" ".join(f"word{number}" for number in range(20)) + " "]
    assert followers[0].read() == TextClient(row.agent_id).read() == "A whole new answer."
    assert followers[0].rewinds == [0]
    assert calls() == [("small", "", "done"), ("big", "try 1", "failed")]
    failed = AgentCall.objects.get(call_id="try 1")
    assert f"after {len(texts[0])} characters" in failed.error
    assert (failed.cost, failed.input_tokens) == (None, 0)
    answered = AgentCall.objects.get(kind=CallKind.MODEL, call_id="")
    assert (answered.input_tokens, row.usage["requests"]) == (100, 1)


def test_a_stream_that_hangs_in_the_middle_is_replaced() -> None:
    never = threading.Event()
    with servers([Answer(LONG, cut_after=20, cut_when=never)], [Answer("A whole new answer.")]) as (first, second):
        row = answer_of([ModelCandidate(model(first, "big"), timeout=0.3), model(second, "small")])
        never.set()

    assert row.result == TextClient(row.agent_id).read() == "A whole new answer."
    assert "TimeoutError" in AgentCall.objects.get(call_id="try 1").error


def test_a_run_that_is_not_durable_falls_back_too() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(
            agent_id, models=[model(first, "big"), model(second, "small")], durable=False, stream=True
        )
        return str((await runner.run(Agent("Writer"), "Go.")).final_output)

    with servers([Answer(LONG, cut_after=20)], [Answer("A whole new answer.")]) as (first, second):
        row = run(handler)

    assert row.result == TextClient(row.agent_id).read() == "A whole new answer."
    assert calls() == []


@function_tool
def nothing() -> str:
    """Do nothing."""
    return ""


def test_tool_calls_of_a_stream_that_is_cut_are_not_made() -> None:
    """Items that a failed stream has completed do not belong to the answer."""
    made: list[str] = []

    @function_tool
    def send(to: str) -> str:
        """Send."""
        made.append(to)
        return "sent"

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Writer", model=ResilientModel([Cut(), model(second, "small")]), tools=[send])
        return str((await OpenAIRunner(agent_id).run(agent, "Go.")).final_output)

    class Cut(ScriptedModel):
        def __init__(self) -> None:
            super().__init__([])

        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with servers([Answer(calls=[Call("send", {"to": "wrong"})])]) as (server,):
                async for event in model(server, "cut", "responses").stream_response(*args, **kwargs):
                    if event.type == "response.completed":
                        raise ConnectionError("cut off")
                    yield event

    with servers([], [Answer(calls=[Call("send", {"to": "right"})]), Answer("Done.")]) as (_, second):
        row = run(handler)

    assert (row.result, made) == ("Done.", ["right"]), row.error


@pytest.mark.parametrize(
    ("status", "code"), [(400, None), (401, None), (404, None), (422, None), (429, "context_length_exceeded")]
)
def test_an_error_of_the_request_calls_no_other_model(status: int, code: str | None) -> None:
    with servers([Answer(status=status, code=code)], [Answer("Wrong.")]) as (first, second):
        row = answer_of([model(first, "big"), model(second, "small")])

    assert row.status == Status.ERROR
    assert second.requests == []
    assert calls() == [("big", "", "failed")]
    assert "open" not in states().values()


def test_an_error_of_the_program_calls_no_other_model() -> None:
    with servers([Answer("Wrong.")]) as (second,):
        row = answer_of([ScriptedModel([ValueError("a mistake")]), model(second, "small")])

    assert "ValueError" in row.error
    assert second.requests == []


def test_if_no_model_answers_the_error_names_the_reasons_and_the_next_attempt_calls_all_again() -> None:
    with servers([Answer(status=500), Answer("Fine.")], [Answer(status=503)]) as (first, second):

        async def handler(agent_id: UUID, context: Empty) -> str:
            agent = Agent("Writer", model=ResilientModel([model(first, "big"), model(second, "small")]))
            return str((await OpenAIRunner(agent_id).run(agent, "Go.")).final_output)

        row = run(handler, max_retries=1)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Fine.", 2)
    log = " ".join(line.message for line in row.logs.all())
    assert "ModelsUnavailable: No model has answered: big: InternalServerError" in log
    assert "small: InternalServerError" in log
    assert calls() == [("big", "", "done"), ("big", "try 1", "failed"), ("small", "try 2", "failed")]


def test_a_replay_finds_the_answer_of_the_fallback() -> None:
    attempts: list[int] = []

    async def handler(agent_id: UUID, context: Empty) -> str:
        models = ResilientModel([model(first, "big"), model(second, "small")])
        runner = OpenAIRunner(agent_id, stream=True)
        results = [await runner.run(Agent("Writer", model=models), prompt) for prompt in ("One.", "Two.")]
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("after both runs")
        return " ".join(str(result.final_output) for result in results)

    script = [Answer(status=500), Answer("Second.")], [Answer("First.")]
    with servers(*script) as (first, second):
        row = run(handler, max_retries=1)

    assert (row.result, row.attempt) == ("First. Second.", 2), row.error
    assert (len(first.requests), len(second.requests)) == (2, 1)
    assert not AgentCall.objects.filter(has_changed=True).exists()
    assert TextClient(row.agent_id).read() == "First.\n\nSecond."


def test_the_cost_is_that_of_the_model_that_billed() -> None:
    ModelPrice.objects.create(pattern="big", valid_from="2020-01-01", input_price=1000, output_price=1000)
    ModelPrice.objects.create(pattern="small", valid_from="2020-01-01", input_price=1, output_price=1)
    with servers([Answer(status=500)], [Answer("Fine.", tokens=Tokens(1_000_000, 0, 0, 0))]) as (first, second):
        row = answer_of([model(first, "big"), model(second, "small")])

    assert row.cost == Decimal(1)
    answered = AgentCall.objects.get(kind=CallKind.MODEL, call_id="")
    assert (answered.name, answered.cost) == ("small", Decimal(1))
    assert answered.provider == second.base_url.removeprefix("http://").removesuffix("/v1")


def test_tokens_that_a_failed_answer_reports_are_recorded_and_paid() -> None:
    ModelPrice.objects.create(pattern="*", valid_from="2020-01-01", input_price=1, output_price=1)

    class Failing(Model):
        model = "big"

        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with servers([Answer("Half.", tokens=Tokens(1_000_000, 0, 0, 0))]) as (server,):
                async for event in model(server, "big", "responses").stream_response(*args, **kwargs):
                    if event.type == "response.completed":
                        failed = event.response.model_copy(update={"status": "failed"})
                        yield ResponseFailedEvent(type="response.failed", response=failed, sequence_number=9)
                        return
                    yield event

    with servers([Answer("Fine.", tokens=Tokens(1_000_000, 0, 0, 0))]) as (second,):
        row = answer_of([Failing(), model(second, "small")])

    failed = AgentCall.objects.get(call_id="try 1")
    assert (row.result, row.cost, row.usage["input_tokens"]) == ("Fine.", Decimal(2), 2_000_000)
    assert (failed.state, failed.cost, failed.input_tokens) == (CallState.FAILED, Decimal(1), 1_000_000)


def test_an_open_breaker_is_not_called_until_its_probe_succeeds() -> None:
    script = [*[Answer(status=500)] * 5, Answer("Back."), Answer("Still there.")]
    with servers(script, [Answer("Fine.")] * 6) as (first, second):
        models = ResilientModel([model(first, "big"), model(second, "small")])
        results: list[str] = []

        async def handler(agent_id: UUID, context: Empty) -> None:
            runner = OpenAIRunner(agent_id)
            for number in range(8):
                if number == 6:
                    [name] = [name for name, state in states().items() if state == BreakerState.OPEN]
                    end_pause(name)
                results.append(str((await runner.run(Agent("Writer", model=models), f"{number}")).final_output))

        assert run(handler).status == Status.COMPLETE

    assert results == [*["Fine."] * 6, "Back.", "Still there."]
    assert (len(first.requests), len(second.requests)) == (7, 6)
    assert set(states().values()) == {"closed"}


def test_if_every_breaker_is_open_nothing_is_called_and_the_error_says_when() -> None:
    with servers([Answer("Never.")]) as (first,), override_settings(AGENTEXEC=_memory(MODEL_BREAKER={"failures": 1})):
        big = model(first, "big")
        name = f"{first.base_url.removeprefix('http://').removesuffix('/v1')}/big"
        note_call(name)
        row = answer_of([big])

    assert "big: its circuit breaker is open" in row.error
    assert first.requests == []


@pytest.mark.parametrize(("failures", "headers"), [(1, {"retry-after": "40.0"}), (2, {})])
async def test_an_attempt_that_opens_the_breaker_says_when_the_next_may_call(
    failures: int, headers: dict[str, str]
) -> None:
    """Otherwise a retry before that time would fail without a call, and be used up."""
    breaker = {"failures": failures, "open": 40}
    with (
        servers([Answer(status=500)]) as (first,),
        override_settings(AGENTEXEC=_memory(MODEL_BREAKER=breaker)),
        pytest.raises(ModelsUnavailable) as caught,
    ):
        await Runner.run(Agent("Writer", model=ResilientModel([model(first, "big")])), "Go.")

    assert caught.value.headers == headers


def _memory(**settings: Any) -> dict[str, Any]:
    return {"QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue", **settings}


def test_an_attempt_waits_for_the_breaker() -> None:
    error = ModelsUnavailable("No model has answered.", 12.0)
    from django_agentexec.tasks.retry import RetryPolicy

    assert RetryPolicy(lambda *_: 0.0).delay(error, 1) == 12.0


@override_settings(AGENTEXEC={"REDIS_URL": "redis://127.0.0.1:1/0"})
async def test_without_redis_every_call_is_permitted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with servers([Answer(status=500)], [Answer("Fine.")]) as (first, second):
        models = ResilientModel([model(first, "big"), model(second, "small")])
        result = await Runner.run(Agent("Writer", model=models), "Go.")

    assert result.final_output == "Fine."
    assert "circuit breakers of models are not available; every call is permitted" in caplog.text
    breakers.reset()


async def test_no_breaker_costs_no_contact() -> None:
    store: Any = get_queue().breakers
    with servers([Answer("Fine.")]) as (first,), override_settings(AGENTEXEC=_memory(MODEL_BREAKER={"failures": 0})):
        await Runner.run(Agent("Writer", model=ResilientModel([model(first, "big")])), "Go.")

        assert get_queue().breakers.read(breaker_options()) == []
    assert store.read(breaker_options()) == []


async def test_outside_of_a_worker_it_falls_back_without_a_stream_too() -> None:
    with servers([Answer(status=500)], [Answer("Fine.")]) as (first, second):
        models = ResilientModel([model(first, "big"), model(second, "small")])
        result = await Runner.run(Agent("Writer", model=models), "Go.")

    assert result.final_output == "Fine."


async def test_a_whole_answer_has_a_timeout() -> None:
    never = threading.Event()
    with servers([Answer("Late.", when=never)], [Answer("Fine.")]) as (first, second):
        models = ResilientModel([model(first, "big"), model(second, "small")], timeout=0.2)
        result = await Runner.run(Agent("Writer", model=models), "Go.")
        never.set()

    assert result.final_output == "Fine."


async def test_a_cancellation_is_no_outage_and_frees_the_probe() -> None:
    never = threading.Event()
    with servers([Answer("Late.", when=never)], [Answer("Wrong.")]) as (first, second):
        models = ResilientModel([model(first, "big"), model(second, "small")])
        running = asyncio.ensure_future(Runner.run(Agent("Writer", model=models), "Go."))
        assert await asyncio.to_thread(first.has_request.wait, 60)
        running.cancel()
        await asyncio.wait({running})
        never.set()

    assert running.cancelled()
    assert second.requests == []
    assert "open" not in states().values()


async def test_a_retry_of_the_sdk_calls_all_models_again() -> None:
    settings = ModelSettings(retry=ModelRetrySettings(max_retries=1, policy=retry_policies.http_status([500])))
    with servers([Answer(status=500), Answer("Fine.")], [Answer(status=500)]) as (first, second):
        models = ResilientModel([model(first, "big"), model(second, "small")])
        result = await Runner.run(Agent("Writer", model=models, model_settings=settings), "Go.")

    assert result.final_output == "Fine."
    assert (len(first.requests), len(second.requests)) == (2, 1)


def test_models_of_a_runner_are_those_of_all_agents_and_names_use_the_provider() -> None:
    with servers([Answer(status=500), Answer("Fine.")], [Answer("Local.")]) as (first, second):
        client = AsyncOpenAI(base_url=first.base_url, api_key="test", max_retries=2)
        provider = OpenAIProvider(openai_client=client, use_responses=False)

        async def handler(agent_id: UUID, context: Empty) -> str:
            runner = OpenAIRunner(agent_id, models=["gpt-5", model(second, "local")])
            config = RunConfig(model_provider=provider)
            return str((await runner.run(Agent("Writer", model="unused"), "Go.", run_config=config)).final_output)

        row = run(handler)

    assert row.result == "Local.", row.error
    assert [request.body["model"] for request in first.requests] == ["gpt-5"], "the client must not retry"
    assert calls() == [("local", "", "done"), ("gpt-5", "try 1", "failed")]


def test_requests_skip_models_that_lack_what_they_need() -> None:
    with servers([], [Answer('{"is_fine": true}')]) as (first, second):

        async def handler(agent_id: UUID, context: Empty) -> bool:
            plain = ModelCandidate(model(first, "plain"), supports=["tools"])
            agent = Agent("Writer", model=ResilientModel([plain, model(second, "able")]), output_type=Verdict)
            result = await OpenAIRunner(agent_id).run(agent, "Go.")
            return bool(result.final_output.is_fine)

        row = run(handler)

    assert row.result is True
    assert first.requests == []
    assert calls() == [("able", "", "done")]


IMAGE: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]


@pytest.mark.parametrize(
    ("agent_options", "prompt", "lacking"),
    [
        ({"tools": [nothing]}, "Go.", "tools"),
        ({"handoffs": [Agent("Other")]}, "Go.", "tools"),
        ({"output_type": Verdict}, "Go.", "structured_output"),
        ({}, IMAGE, "images"),
        ({"tools": [WebSearchTool()]}, "Go.", "tools, hosted_tools"),
    ],
)
async def test_if_no_model_is_suitable_the_error_names_what_each_lacks(
    agent_options: dict[str, Any], prompt: Any, lacking: str
) -> None:
    candidate = ModelCandidate(ScriptedModel([]), supports=[])
    agent = Agent("Writer", model=ResilientModel([candidate]), **agent_options)

    with pytest.raises(InvalidOption, match=rf"\({lacking}\): ScriptedModel lacks {lacking}\. Add a model"):
        await Runner.run(agent, prompt)


async def test_chat_completions_have_no_hosted_tools() -> None:
    with servers([]) as (server,):
        agent = Agent("Writer", model=ResilientModel([model(server, "chat")]), tools=[WebSearchTool()])

        with pytest.raises(InvalidOption, match="chat lacks hosted_tools"):
            await Runner.run(agent, "Go.")


async def test_settings_of_a_candidate_replace_those_of_the_agent() -> None:
    with servers([Answer(status=500)], [Answer("Fine.")]) as (first, second):
        small = ModelCandidate(model(second, "small"), settings=ModelSettings(temperature=0.5))
        agent = Agent(
            "Writer", model=ResilientModel([model(first, "big"), small]), model_settings=ModelSettings(temperature=1)
        )
        await Runner.run(agent, "Go.")

    assert (first.requests[0].body["temperature"], second.requests[0].body["temperature"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: ResilientModel([]), "must be a list of at least one model"),
        (lambda: ResilientModel("gpt-5"), "must be a list of at least one model"),  # type: ignore[arg-type]
        (lambda: ResilientModel([3]), "must be the name of a model"),  # type: ignore[list-item]
        (lambda: ResilientModel([""]), "must be the name of a model"),
        (lambda: ResilientModel([ResilientModel(["a"])]), "contains another"),
        (lambda: ResilientModel(["a"], timeout=0), r"ResilientModel\(timeout=0\)"),
        (lambda: ResilientModel(["a"], cache=3), r"ResilientModel\(cache=3\)"),  # type: ignore[arg-type]
        (lambda: ModelCandidate("a", timeout="1"), "timeout='1'"),  # type: ignore[arg-type]
        (lambda: ModelCandidate("a", supports=["image"]), "names 'image', but the abilities are 'tools'"),
        (lambda: ModelCandidate("a", settings={}), "must be ModelSettings"),  # type: ignore[arg-type]
        (lambda: OpenAIRunner(UUID(int=1), models=[]), "must be a list of at least one model"),
    ],
)
def test_invalid_options_are_refused(create: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        create()


@pytest.mark.parametrize("method", [Model.get_response, Model.stream_response])
def test_the_parameters_are_those_of_the_sdk(method: Any) -> None:
    assert tuple(inspect.signature(method).parameters)[1:] == PARAMETERS


async def test_the_prompt_cache_key_of_the_sdk_is_sent_to_models_that_accept_it() -> None:
    class Accepting(ScriptedModel):
        def _supports_default_prompt_cache_key(self) -> bool:
            return True

    accepting, other = Accepting([ConnectionError("down")]), ScriptedModel([[assistant_message("Fine.")]])
    agent = Agent("Writer", model=ResilientModel([accepting, other]))
    await Runner.run(agent, "Go.", run_config=RunConfig(group_id="g"))

    sent = [each.calls[0].model_settings.extra_args for each in (accepting, other)]
    assert [args is not None and PROMPT_CACHE_KEY in args for args in sent] == [True, False]


async def test_a_run_has_one_source_of_its_model() -> None:
    runner = OpenAIRunner(UUID(int=1), models=["gpt-5"])

    with pytest.raises(InvalidOption, match="both set the model of a run"):
        await runner.run(Agent("Writer"), "Go.", run_config=RunConfig(model="gpt-4"))


def test_tries_are_free_of_the_answers_place() -> None:
    """A scripted answer after a failure keeps its ordinal, so a later call is the second."""
    with servers([Answer(status=500)] * 2) as (first,):

        async def handler(agent_id: UUID, context: Empty) -> None:
            models = ResilientModel(
                [model(first, "big"), ScriptedModel([[assistant_message("One")], [assistant_message("Two")]])]
            )
            runner = OpenAIRunner(agent_id)
            await runner.run(Agent("Writer", model=models), "Go.", key="a")
            await runner.run(Agent("Writer", model=models), "Go.", key="b")

        row = run(handler)

    assert row.status == Status.COMPLETE
    rows = AgentCall.objects.filter(kind=CallKind.MODEL).values_list("path", "ordinal", "call_id")
    assert sorted(rows) == [("~key=a", 0, ""), ("~key=a", 0, "try 1"), ("~key=b", 0, ""), ("~key=b", 0, "try 1")]
