"""The points of the OpenAI Agents SDK on which durable runs depend.

Each test names its point: a release of the SDK that changes the point fails the test.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import fields, replace
from typing import Any

import pytest
from agents import (
    Agent,
    FunctionTool,
    GuardrailFunctionOutput,
    Handoff,
    InputGuardrail,
    LocalShellCommandRequest,
    Model,
    ModelProvider,
    RunConfig,
    RunHooks,
    Runner,
    ShellCallData,
    ShellCommandRequest,
    Usage,
    function_tool,
    handoff,
)
from agents.items import ModelResponse
from agents.lifecycle import AgentHooksBase, RunHooksBase
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.testing import ScriptedModel, function_call
from agents.tool_context import ToolContext
from openai.types.responses import ResponseCompletedEvent

from django_agentexec.models import AgentCall
from django_agentexec.runners.openai.limited import LimitedModel
from django_agentexec.runners.openai.model import DurableModel, DurableProvider
from django_agentexec.runners.openai.nested import DispatchingRunner
from django_agentexec.runners.openai.silent_hooks import PUBLIC_AGENT, SilentAgentHooks, SilentHooks
from django_agentexec.runners.openai.wire import completed_event, loaded_response, stored_response
from tests.support.scripted_models import model, say

seen: ContextVar[str] = ContextVar("seen", default="")


def call(name: str, call_id: str = "1", /, **arguments: Any) -> list[Any]:
    return [function_call(name, arguments, call_id=call_id)]


class Provider(ModelProvider):
    """A provider that notes the names it is asked for."""

    def __init__(self) -> None:
        self.names: list[str | None] = []

    def get_model(self, model_name: str | None) -> Model:
        self.names.append(model_name)
        return model(say("by the provider"))


def own_methods(kind: type) -> set[str]:
    """Return the methods that a class defines, without those of every object."""
    return {name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("__")}


@pytest.mark.parametrize(
    ("base", "derived"),
    [
        (Model, DurableModel),
        (Model, LimitedModel),
        (ModelProvider, DurableProvider),
        (RunHooksBase, SilentHooks),
        (AgentHooksBase, SilentAgentHooks),
        (AgentRunner, DispatchingRunner),
    ],
)
def test_point_every_method_of_a_wrapped_class_is_delegated(base: type, derived: type) -> None:
    # A method that the base class implements does not reach `__getattr__` of the wrapper.
    public = {name for name in own_methods(base) if base is not AgentRunner or not name.startswith("_")}
    assert public
    delegated = set().union(*map(own_methods, derived.__mro__[: derived.__mro__.index(base)]))
    assert public - delegated == set()


async def test_point_model_resolution_order() -> None:
    async def answer(agent_model: Any, config_model: Any) -> tuple[str, list[str | None]]:
        provider = Provider()
        config = RunConfig(model=config_model, model_provider=provider)
        result = await Runner.run(Agent("A", model=agent_model), "Go.", run_config=config)
        return str(result.final_output), provider.names

    assert await answer(model(say("by the agent")), model(say("by the config"))) == ("by the config", [])
    assert await answer(model(say("by the agent")), "named") == ("by the provider", ["named"])
    assert await answer(model(say("by the agent")), None) == ("by the agent", [])
    assert await answer("named by the agent", None) == ("by the provider", ["named by the agent"])


async def test_point_private_hooks_of_models_are_called_on_the_wrapper() -> None:
    cleaned: list[object] = []

    class Cleaning(ScriptedModel):
        async def _cleanup_on_run_end(self, owner: object) -> None:
            cleaned.append(owner)

    result = Runner.run_streamed(Agent("A", model=DurableModel(Cleaning([say("done")]))), "Go.")
    async for _ in result.stream_events():
        pass

    assert result.final_output == "done"
    assert cleaned


async def test_point_public_agent_attribute() -> None:
    """Rules of tools, and approvals, see the agent behind an execution copy."""
    agents: list[Any] = []

    def is_enabled(context: Any, agent: Any) -> bool:
        agents.append(agent)
        return True

    @function_tool(is_enabled=is_enabled, needs_approval=True)
    def send() -> str:
        """Send."""
        return "sent"

    original = Agent("A", model=model(call("send"), say("done")), tools=[send])
    execution = copy.copy(original)
    execution.__dict__[PUBLIC_AGENT] = original
    result = await Runner.run(execution, "Go.")
    state = result.to_state()
    state.approve(result.interruptions[0])

    assert (await Runner.run(execution, state)).final_output == "done"
    assert agents
    assert all(agent is original for agent in agents)


async def test_point_get_all_tools_of_an_instance_is_called_in_each_turn() -> None:
    turns: list[int] = []

    @function_tool
    def add() -> str:
        """Add."""
        return "5"

    agent = Agent("A", model=model(call("add"), call("add", "2"), say("done")))
    scripted: Any = agent.model

    async def get_all_tools(context: Any) -> list[Any]:
        turns.append(len(scripted.calls))
        return [add]

    agent.__dict__["get_all_tools"] = get_all_tools

    assert (await Runner.run(agent, "Go.")).final_output == "done"
    assert sorted(set(turns)) == [0, 1, 2]


async def test_point_a_copy_of_a_function_tool_keeps_the_flags_of_an_agent_tool() -> None:
    inner = Agent("Inner", model=model(say("inner")))
    tool = inner.as_tool("inner", "Helps.")
    durable = copy.copy(tool)
    original = tool.on_invoke_tool

    async def invoke(context: Any, arguments: str) -> Any:  # a plain function, as in durable tools
        return await original(context, arguments)

    durable.on_invoke_tool = invoke

    assert tool._is_agent_tool is durable._is_agent_tool is True
    different = [each.name for each in fields(tool) if getattr(tool, each.name) != getattr(durable, each.name)]
    assert different == ["on_invoke_tool"]
    outer = Agent("Outer", model=model(call("inner", input="x"), say("done")), tools=[durable])
    result = await Runner.run(outer, "Go.")
    outputs = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
    assert outputs == ["inner"]


async def test_point_a_handoff_can_be_replaced_with_another_target() -> None:
    target, other = Agent("Target", model=model(say("target"))), Agent("Other", model=model(say("other")))
    given = handoff(target)

    async def invoke(context: Any, arguments: str) -> Any:
        assert await given.on_invoke_handoff(context, arguments) is target
        return other

    changed = replace(given, on_invoke_handoff=invoke)
    assert changed.tool_name == given.tool_name == Handoff.default_tool_name(target)

    result = await Runner.run(Agent("A", model=model(call(given.tool_name), []), handoffs=[changed]), "Go.")

    assert result.final_output == "other"
    assert result.last_agent is other


async def test_point_the_approval_rule_is_called_with_context_arguments_and_call_id() -> None:
    calls: list[tuple[Any, ...]] = []

    async def rule(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        calls.append((arguments, call_id))
        return False

    @function_tool(needs_approval=rule)
    def add(number: int) -> str:
        """Add."""
        return str(number)

    await Runner.run(Agent("A", model=model(call("add", "c1", number=5), say("done")), tools=[add]), "Go.")

    assert ({"number": 5}, "c1") in calls
    assert {call_id for _, call_id in calls} == {"c1"}


async def test_point_interruptions_name_the_call_and_their_state_takes_decisions() -> None:
    done: list[str] = []

    @function_tool(needs_approval=True)
    def send(to: str) -> str:
        """Send."""
        done.append(to)
        return "sent"

    steps = ([*call("send", "c1", to="A"), *call("send", "c2", to="B")], say("done"))
    result = Runner.run_streamed(Agent("A", model=model(*steps), tools=[send]), "Go.")
    async for _ in result.stream_events():
        pass

    assert [(item.raw_item.name, item.raw_item.call_id) for item in result.interruptions] == [
        ("send", "c1"),
        ("send", "c2"),
    ]
    state = result.to_state()
    assert state._current_agent is result.last_agent
    state.approve(result.interruptions[0])
    state.reject(result.interruptions[1], rejection_message="Not B.")
    final = await Runner.run(result.last_agent, state)
    assert (final.final_output, done) == ("done", ["A"])
    assert "Not B." in str(final.to_input_list())


class CountingRunner(AgentRunner):
    """The SDK's runner, which notes the agents that it runs."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def run(self, starting_agent: Any, input: Any, **options: Any) -> Any:
        self.names.append(starting_agent.name)
        return await super().run(starting_agent, input, **options)

    def run_streamed(self, starting_agent: Any, input: Any, **options: Any) -> Any:
        self.names.append(starting_agent.name)
        return super().run_streamed(starting_agent, input, **options)


@pytest.fixture
def counting() -> Iterator[CountingRunner]:
    before, runner = get_default_agent_runner(), CountingRunner()
    set_default_agent_runner(runner)
    yield runner
    set_default_agent_runner(before)


async def test_point_the_default_runner_receives_nested_runs(counting: CountingRunner) -> None:
    helper, guard = Agent("Helper", model=model(say("helped"))), Agent("Guard", model=model(say("harmless")))
    inner = Agent("Inner", model=model(say("inner")))

    async def check(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        await Runner.run(guard, "Is it harmless?")
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    @function_tool
    async def ask_inner() -> str:
        """Ask."""
        return str((await Runner.run(inner, "Go.")).final_output)

    boss = Agent(
        "Boss",
        model=model(call("help", input="x"), call("ask_inner", "2"), say("done")),
        tools=[helper.as_tool("help", "Helps."), ask_inner],
        input_guardrails=[InputGuardrail(check)],
    )

    assert (await Runner.run(boss, "Go.")).final_output == "done"
    assert sorted(counting.names) == ["Boss", "Guard", "Helper", "Inner"]


async def test_point_on_tool_end_receives_tool_timeouts() -> None:
    ended: list[tuple[str, Any]] = []

    class Hooks(RunHooks[Any]):
        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            ended.append((context.tool_call_id, result))

    @function_tool(timeout=0.01)
    async def wait() -> str:
        """Wait."""
        await asyncio.Event().wait()
        return "never"

    await Runner.run(Agent("A", model=model(call("wait", "c1"), say("done")), tools=[wait]), "Go.", hooks=Hooks())

    ((call_id, result),) = ended
    assert call_id == "c1"
    assert "timed out" in str(result)


async def test_point_tools_receive_the_id_of_their_call_and_context_variables() -> None:
    calls: list[tuple[str, str]] = []

    async def invoke(context: ToolContext[Any], arguments: str) -> str:
        calls.append((context.tool_call_id, seen.get()))
        return "done"

    @function_tool
    def in_thread(context: ToolContext[Any]) -> str:
        """Run in a thread."""
        calls.append((context.tool_call_id, seen.get()))
        return "done"

    custom = FunctionTool("custom", "", {"type": "object", "properties": {}}, invoke, strict_json_schema=False)
    agent = Agent(
        "A", model=model(call("custom", "c1"), call("in_thread", "c2"), say("done")), tools=[custom, in_thread]
    )
    seen.set("by the caller")
    result = Runner.run_streamed(agent, "Go.")
    seen.set("")
    async for _ in result.stream_events():
        pass

    assert calls == [("c1", "by the caller"), ("c2", "by the caller")]


def test_point_shell_executors_receive_the_id_of_their_call() -> None:
    assert {"ctx_wrapper", "data"} <= {each.name for each in fields(ShellCommandRequest)}
    assert {"call_id", "action"} <= {each.name for each in fields(ShellCallData)}
    assert {"ctx_wrapper", "data"} <= {each.name for each in fields(LocalShellCommandRequest)}


async def test_point_the_completed_event_alone_ends_a_streamed_answer() -> None:
    """A replayed answer is one event."""

    class Replaying(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            raise AssertionError

        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            response = ModelResponse(output=say("recorded"), usage=Usage(requests=1), response_id="r1")
            row = AgentCall(name="m", output=stored_response(response), input_tokens=3, output_tokens=2)
            event = completed_event(row, loaded_response(row))
            assert isinstance(event, ResponseCompletedEvent)
            yield event

    result = Runner.run_streamed(Agent("A", model=Replaying()), "Go.")
    async for _ in result.stream_events():
        pass

    assert result.final_output == "recorded"
    assert result.raw_responses[0].usage.input_tokens == 3


async def test_point_attributes_of_a_streamed_result() -> None:
    agent = Agent("A", model=model(say("done")))
    result = Runner.run_streamed(agent, "Go.", max_turns=3)
    assert result.run_loop_task is not None
    async for _ in result.stream_events():
        pass

    assert (result.max_turns, result.current_turn) == (3, 1)
    assert "current_agent" in result.__dict__
    assert result.current_agent is result.last_agent is agent
    assert result.interruptions == []
    assert result.context_wrapper.usage.requests == 1


async def test_point_instructions_are_called_with_context_and_agent() -> None:
    calls: list[tuple[Any, ...]] = []

    def instructions(*arguments: Any) -> str:
        calls.append(arguments)
        return "Do it."

    agent = Agent("A", model=model(say("done")))
    agent.__dict__["instructions"] = lambda context, agent: instructions(context, agent)

    await Runner.run(agent, "Go.")

    ((_, given),) = calls
    assert given is agent
