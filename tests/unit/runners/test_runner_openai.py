"""`OpenAIRunner`: results, steps in the log, the agent's own reports, and which errors the model sees."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from agents import (
    Agent,
    AgentHooks,
    RunContextWrapper,
    RunHooks,
    RunResultStreaming,
    StreamEvent,
    Tool,
    ToolCallOutputItem,
    UserError,
    function_tool,
)
from agents.lifecycle import RunHooksBase
from agents.testing import ScriptedModel, assistant_message, function_call
from django.core.exceptions import ImproperlyConfigured

from django_agentexec import InvalidOption, InvalidTransition, OpenAIRunner, StaleAttempt
from django_agentexec.runners.openai.hooks import JoinedHooks
from tests.support.activity_recorder import ActivityRecorder


@function_tool
def fetch(page: str) -> str:
    """Fetch a page."""
    return f"Contents of {page}"


def reporting(*arguments: dict[str, Any] | str) -> list[list[Any]]:
    """Return a script in which the model reports with each of `arguments`, then answers."""
    reports = [[function_call("report_status", each, call_id=f"r{number}")] for number, each in enumerate(arguments)]
    return [*reports, [assistant_message("Done.")]]


def outputs(result: RunResultStreaming) -> list[str]:
    """Return the results of the tools that the model received."""
    return [str(item.output) for item in result.new_items if isinstance(item, ToolCallOutputItem)]


# Results, and what is passed through


async def test_a_run_returns_a_complete_result(runner: OpenAIRunner) -> None:
    agent = Agent("Clerk", model=ScriptedModel([[assistant_message("Hello.")]]))

    result = await runner.run(agent, "Hi")

    assert result.is_complete
    assert result.final_output == "Hello."
    assert result.last_agent is agent
    assert [item.get("role") for item in result.to_input_list()] == ["user", "assistant"]


async def test_the_context_reaches_the_tools(runner: OpenAIRunner) -> None:
    seen = []

    @function_tool
    async def look(wrapper: RunContextWrapper[dict[str, str]]) -> str:
        """Look at the context."""
        seen.append(wrapper.context)
        return "ok"

    model = ScriptedModel([[function_call("look", {}, call_id="1")], [assistant_message("Done.")]])
    context = {"user": "ada"}

    await runner.run(Agent("Clerk", model=model, tools=[look]), "Hi", context=context)

    assert seen == [context]


async def test_an_option_that_the_sdk_does_not_know_is_refused(runner: OpenAIRunner) -> None:
    agent = Agent("Clerk", model=ScriptedModel([[assistant_message("Hello.")]]))

    with pytest.raises(TypeError, match="max_turn"):
        await runner.run(agent, "Hi", max_turn=3)  # type: ignore[call-arg]  # the point of the test


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_events_are_forwarded_in_their_order(runner: OpenAIRunner, asynchronous: bool) -> None:
    events: list[StreamEvent] = []

    async def forward(event: StreamEvent) -> None:
        await asyncio.sleep(0)
        events.append(event)

    agent = Agent("Clerk", model=ScriptedModel([[assistant_message("Hello.")]]))

    result = await runner.run_streamed(agent, "Hi", forwarder=forward if asynchronous else events.append)

    kinds = [event.type for event in events]
    assert kinds[0] == "agent_updated_stream_event"
    assert kinds[-1] == "run_item_stream_event"
    assert "raw_response_event" in kinds
    assert result.final_output == "Hello."


async def test_a_failing_forwarder_stops_the_run(runner: OpenAIRunner) -> None:
    model = ScriptedModel([[function_call("fetch", {"page": "1"}, call_id="1")], [assistant_message("Done.")]])

    def forward(event: StreamEvent) -> None:
        raise ConnectionError("The listener is gone.")

    with pytest.raises(ConnectionError, match="The listener is gone"):
        await runner.run_streamed(Agent("Clerk", model=model, tools=[fetch]), "Hi", forwarder=forward)

    assert model.remaining_steps > 0


# Steps in the log


STEPS = ["Agent Triage started.", "Agent Triage hands over to Expert.", "Agent Expert started."]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("none", []),
        ("agents", ["Agent Triage started.", "Agent Expert started."]),
        ("steps", [*STEPS, "Agent Expert calls fetch."]),
    ],
)
async def test_the_setting_says_which_steps_are_logged(
    runner: OpenAIRunner,
    recorder: ActivityRecorder,
    settings: Any,
    level: str,
    expected: Sequence[str],
) -> None:
    settings.AGENTEXEC = {"RUNNER_LOG": level}
    model = ScriptedModel(
        [
            [function_call("transfer_to_expert", {}, call_id="1")],
            [function_call("fetch", {"page": "1"}, call_id="2")],
            [assistant_message("Done.")],
        ]
    )
    expert = Agent("Expert", model=model, tools=[fetch])

    await runner.run(Agent("Triage", model=model, handoffs=[expert]), "Hi")

    assert recorder.updates == [(message, None) for message in expected]
    model.assert_complete()


async def test_an_unknown_level_is_refused(runner: OpenAIRunner, settings: Any) -> None:
    settings.AGENTEXEC = {"RUNNER_LOG": "all"}

    with pytest.raises(ImproperlyConfigured, match=r"RUNNER_LOG.*'all'.*'none', 'agents', 'steps'"):
        await runner.run(Agent("Clerk", model=ScriptedModel()), "Hi")


async def test_the_users_hooks_run_too(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    called = []

    class Hooks(RunHooks[Any]):
        async def on_tool_start(self, context: RunContextWrapper[Any], agent: Any, tool: Tool) -> None:
            called.append(tool.name)

    model = ScriptedModel([[function_call("fetch", {"page": "1"}, call_id="1")], [assistant_message("Done.")]])

    await runner.run(Agent("Clerk", model=model, tools=[fetch]), "Hi", hooks=Hooks())

    assert called == ["fetch"]
    assert recorder.messages == ["Agent Clerk started.", "Agent Clerk calls fetch."]


async def test_hooks_of_a_single_agent_are_refused(runner: OpenAIRunner) -> None:
    agent = Agent("Clerk", model=ScriptedModel([[assistant_message("Hello.")]]))

    with pytest.raises(TypeError, match=r"hooks is a AgentHooksBase.*agents\.RunHooks"):
        await runner.run(agent, "Hi", hooks=AgentHooks())  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("event", [name for name in vars(RunHooksBase) if name.startswith("on_")])
async def test_every_event_of_the_sdk_reaches_every_hook(event: str) -> None:
    calls: list[tuple[str, tuple[object, ...]]] = []

    def recording(name: str) -> RunHooks[Any]:
        async def record(self: object, *arguments: object) -> None:
            calls.append((name, arguments))

        hooks: RunHooks[Any] = type(name, (RunHooksBase,), {event: record})()
        return hooks

    arguments = tuple(object() for _ in list(inspect.signature(getattr(RunHooksBase, event)).parameters)[1:])

    await getattr(JoinedHooks(recording("first"), recording("second")), event)(*arguments)

    assert calls == [("first", arguments), ("second", arguments)]


# The agent's own reports


async def test_the_agent_reports_its_progress(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    model = ScriptedModel(reporting({"message": "Analyzing financials", "percentage": 60}))
    agent = Agent("Clerk", model=model, tools=[runner.tools.report_status])

    result = await runner.run(agent, "Hi")

    assert recorder.updates == [("Agent Clerk started.", None), ("Analyzing financials", 60)]
    assert outputs(result) == ["The status was saved."]


def test_the_tool_tells_the_model_what_it_takes(runner: OpenAIRunner) -> None:
    tool = runner.tools.report_status

    assert tool.name == "report_status"
    assert tool.params_json_schema["required"] == ["message", "percentage"]
    assert tool.params_json_schema["properties"]["percentage"]["type"] == "integer"
    assert "0 to 100" in tool.params_json_schema["properties"]["percentage"]["description"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"message": "Working", "percentage": 130},
        {"message": "Working", "percentage": -1},
        {"message": "Working", "percentage": "most"},
        {"percentage": 50},
        "{not json",
    ],
)
async def test_the_model_hears_of_wrong_arguments_and_goes_on(
    runner: OpenAIRunner, recorder: ActivityRecorder, arguments: dict[str, Any] | str
) -> None:
    model = ScriptedModel(reporting(arguments, {"message": "Working", "percentage": 50}))
    agent = Agent("Clerk", model=model, tools=[runner.tools.report_status])

    result = await runner.run(agent, "Hi")

    error, success = outputs(result)
    assert error.startswith("Error:")
    assert "an integer from 0 to 100" in error
    assert success == "The status was saved."
    assert recorder.updates[1:] == [("Working", 50)]
    assert result.final_output == "Done."


class EndsWithReport(ActivityRecorder):
    """An activity that is lost when the agent reports."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def aupdate(self, agent_id: Any, message: str, percentage: int | None = None) -> None:
        if percentage is not None:
            raise self.error
        await super().aupdate(agent_id, message, percentage)


@pytest.mark.parametrize("error", [StaleAttempt("The lease was lost."), InvalidTransition("It has ended.")])
async def test_a_lost_activity_stops_the_run(
    runner: OpenAIRunner, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("django_agentexec.runners.base.activity", EndsWithReport(error))
    model = ScriptedModel(reporting({"message": "Working", "percentage": 50}))
    agent = Agent("Clerk", model=model, tools=[runner.tools.report_status])

    with pytest.raises(type(error)) as raised:
        await runner.run(agent, "Hi")

    assert raised.value is error
    assert model.remaining_steps == 1  # the answer after the report was never asked for


@pytest.mark.parametrize("behavior", ["run_llm_again", "stop_on_first_tool"])
async def test_an_agent_used_as_a_tool_cannot_hide_the_loss(
    runner: OpenAIRunner, monkeypatch: pytest.MonkeyPatch, behavior: Any
) -> None:
    error = StaleAttempt("The lease was lost.")
    monkeypatch.setattr("django_agentexec.runners.base.activity", EndsWithReport(error))
    inner = Agent(
        "Helper",
        model=ScriptedModel(reporting({"message": "Working", "percentage": 50})),
        tools=[runner.tools.report_status],
    )
    call = function_call("helper", {"input": "Help"}, call_id="1")
    model = ScriptedModel([[call], [assistant_message("Done.")]])
    tools: list[Tool] = [inner.as_tool("helper", "Helps.")]

    with pytest.raises(StaleAttempt) as raised:
        await runner.run(Agent("Clerk", model=model, tools=tools, tool_use_behavior=behavior), "Hi")

    assert raised.value is error
    assert model.remaining_steps == 1


async def test_a_lost_activity_is_found_when_a_step_is_logged(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    recorder.refusal = StaleAttempt("The lease was lost.")
    model = ScriptedModel([[assistant_message("Done.")]])

    with pytest.raises(StaleAttempt):
        await runner.run(Agent("Clerk", model=model), "Hi")

    assert model.remaining_steps == 1


async def test_a_database_failure_is_not_shown_to_the_model(
    runner: OpenAIRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_agentexec.runners.base.activity", EndsWithReport(OSError("disk is full")))
    model = ScriptedModel(reporting({"message": "Working", "percentage": 50}))

    with pytest.raises(UserError, match="disk is full"):
        await runner.run(Agent("Clerk", model=model, tools=[runner.tools.report_status]), "Hi")


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ({"in_doubt": 5}, "in_doubt=5.*'ask', or a dictionary from names of tools"),
        ({"approval_timeout": -1}, "approval_timeout=-1.* must be a timedelta, text such as"),
        ({"approval_timeout": "4 hours"}, "approval_timeout='4 hours' must be a timedelta, text such as '4h'"),
        ({"approval_timeout": float("nan")}, "approval_timeout=nan must be"),
    ],
)
def test_an_impossible_policy_is_refused_before_the_run(option: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InvalidOption, match=remedy):
        OpenAIRunner(uuid4(), **option)
