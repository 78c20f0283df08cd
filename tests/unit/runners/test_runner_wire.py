"""`OpenAIRunner` over the wire: both of OpenAI's APIs, against a scripted server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from agents import (
    Agent,
    MaxTurnsExceeded,
    Model,
    ModelRetrySettings,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
)
from agents.models.interface import ModelTracing
from openai import AsyncOpenAI, InternalServerError

from django_agentexec import OpenAIRunner
from tests.support.activity_recorder import ActivityRecorder
from tests.support.model_server import Answer, Call, ModelServer, Tokens

_NO_TRACING = ModelTracing.DISABLED
APIS = [OpenAIChatCompletionsModel, OpenAIResponsesModel]
REPORT = Call("report_status", {"message": "Analyzing financials", "percentage": 60})


@asynccontextmanager
async def served(api: Callable[..., Model], *answers: Answer) -> AsyncIterator[tuple[ModelServer, Model]]:
    """A server with `answers`, and a model that asks it through `api`."""
    with ModelServer(answers) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:
            yield server, api(model="scripted", openai_client=client)


@pytest.mark.parametrize("api", APIS)
async def test_an_agent_reports_answers_and_is_counted(
    runner: OpenAIRunner, recorder: ActivityRecorder, api: Callable[..., Model]
) -> None:
    answers = [Answer(calls=[REPORT]), Answer("All is well.", tokens=Tokens(200, 150, 30, 0))]
    async with served(api, *answers) as (server, model):
        agent = Agent("Clerk", model=model, tools=[runner.tools.report_status])

        result = await runner.run(agent, "How is Acme?")

    assert result.final_output == "All is well."
    assert ("Analyzing financials", 60) in recorder.updates
    assert recorder.usage == {
        "requests": 2,
        "input_tokens": 300,
        "cached_tokens": 190,
        "output_tokens": 50,
        "reasoning_tokens": 5,
        "total_tokens": 350,
    }
    assert [request.body["stream"] for request in server.requests] == [True, True]


@pytest.mark.parametrize("api", APIS)
async def test_text_is_streamed(runner: OpenAIRunner, api: Callable[..., Model]) -> None:
    deltas: list[str] = []

    def forward(event: Any) -> None:
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas.append(event.data.delta)

    async with served(api, Answer("All is well.")) as (_, model):
        await runner.run_streamed(Agent("Clerk", model=model), "Hi", forwarder=forward)

    assert "".join(deltas) == "All is well."


@pytest.mark.parametrize("api", APIS)
async def test_a_failing_server_is_an_error_and_what_came_before_is_counted(
    runner: OpenAIRunner, recorder: ActivityRecorder, api: Callable[..., Model]
) -> None:
    async with served(api, Answer(calls=[REPORT]), Answer(status=503)) as (_, model):
        agent = Agent("Clerk", model=model, tools=[runner.tools.report_status])

        with pytest.raises(InternalServerError, match="scripted error 503"):
            await runner.run(agent, "Hi")

    assert recorder.usage["total_tokens"] == 120


@pytest.mark.parametrize("api", APIS)
async def test_the_model_wraps_up_when_its_turns_are_used(
    recorder: ActivityRecorder, api: Callable[..., Model]
) -> None:
    runner = OpenAIRunner(uuid4(), max_turns_recovery=True, wrap_up_prompt="Stop now.")
    async with served(api, Answer(calls=[REPORT]), Answer("So far: well.")) as (server, model):
        agent = Agent("Clerk", model=model, tools=[runner.tools.report_status])

        result = await runner.run(agent, "How is Acme?", max_turns=1)

    assert result.final_output == "So far: well."
    asked = server.requests[-1].body.get("input") or server.requests[-1].body["messages"]
    assert asked[0]["content"] == "How is Acme?"
    assert asked[-1]["content"] == "Stop now."
    assert len(asked) == 4  # the question, the call, its answer, the prompt


@pytest.mark.parametrize("api", APIS)
async def test_without_recovery_used_up_turns_are_an_error(runner: OpenAIRunner, api: Callable[..., Model]) -> None:
    async with served(api, Answer(calls=[REPORT])) as (_, model):
        agent = Agent("Clerk", model=model, tools=[runner.tools.report_status])

        with pytest.raises(MaxTurnsExceeded):
            await runner.run(agent, "Hi", max_turns=1)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModelServer], None]:
    """Return a function that directs models given by name to a server."""

    def use(server: ModelServer) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")

    return use


async def test_the_client_of_a_model_by_name_does_not_retry(
    runner: OpenAIRunner, environment: Callable[[ModelServer], None]
) -> None:
    with ModelServer([Answer(status=503), Answer(status=503)]) as server:
        environment(server)

        with pytest.raises(InternalServerError):
            await runner.run(Agent("Clerk", model="scripted"), "Hi")

    assert len(server.requests) == 1


TWICE = ModelSettings(retry=ModelRetrySettings(max_retries=2))


@pytest.mark.parametrize(
    ("agent", "config"),
    [
        (Agent("Clerk", model="scripted", model_settings=TWICE), None),
        (Agent("Clerk", model="scripted"), RunConfig(model_settings=TWICE)),
        (Agent("Clerk", model="scripted", handoffs=[Agent("Expert", model_settings=TWICE)]), None),
    ],
    ids=["agent", "config", "handoff"],
)
async def test_a_project_that_wants_retries_of_the_client_has_them(
    runner: OpenAIRunner, environment: Callable[[ModelServer], None], agent: Agent[None], config: RunConfig | None
) -> None:
    with ModelServer([Answer(status=503, headers={"retry-after-ms": "1"}), Answer("All is well.")]) as server:
        environment(server)

        result = await runner.run(agent, "Hi", run_config=config)

    assert result.final_output == "All is well."
    assert len(server.requests) == 2


async def test_a_client_of_the_projects_own_is_left_alone(runner: OpenAIRunner) -> None:
    with ModelServer([Answer(status=503, headers={"retry-after-ms": "1"}), Answer("All is well.")]) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=1) as client:
            model = OpenAIChatCompletionsModel(model="scripted", openai_client=client)

            await runner.run(Agent("Clerk", model=model), "Hi")

    assert len(server.requests) == 2


async def test_an_agent_that_declines_usage_in_streams_is_left_alone(
    runner: OpenAIRunner, recorder: ActivityRecorder
) -> None:
    async with served(OpenAIChatCompletionsModel, Answer("Hello.")) as (server, model):
        settings = ModelSettings(include_usage=False)

        await runner.run(Agent("Clerk", model=model, model_settings=settings), "Hi")

    assert server.requests[0].body["stream_options"] == {"include_usage": False}
    assert recorder.usage["total_tokens"] == 0


@pytest.mark.parametrize("settings", [ModelSettings(temperature=0.5), {"temperature": 0.5}])
async def test_the_users_model_settings_are_kept(runner: OpenAIRunner, settings: Any) -> None:
    async with served(OpenAIChatCompletionsModel, Answer("Hello.")) as (server, model):
        config = RunConfig(model_settings=settings)

        await runner.run(Agent("Clerk", model=model), "Hi", run_config=config)

    assert server.requests[0].body["temperature"] == 0.5
    assert server.requests[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("api", APIS)
async def test_the_server_answers_plain_requests_too(api: Callable[..., Model]) -> None:
    async with served(api, Answer("Hello.", calls=[REPORT])) as (_, model):
        response = await model.get_response(
            None, "Hi", ModelSettings(), [], None, [], _NO_TRACING,
            previous_response_id=None, conversation_id=None, prompt=None,
        )  # fmt: skip

    assert [item.type for item in response.output] == ["message", "function_call"]
    assert response.usage.total_tokens == 120
