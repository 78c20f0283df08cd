"""Handlers of durable agents that may die at any point. Their models' answers: `tests/e2e/durable_answers.py`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel

from django_agentexec import Attempt, DjangoSession, activity, task

from .durable_pydantic import run_pydantic_agent
from .kill_points import effect, has_died, is_planned, reach
from .troubles import exceed_address_space, hoard_memory

if TYPE_CHECKING:
    from agents import Agent, Model


class Scenario(BaseModel):
    """What runs, where its model is, and where it leaves its traces."""

    name: str
    base_url: str
    folder: str
    api: str = "chat"
    in_doubt: str = "rerun"
    trouble: str = ""
    """What the first call of a tool causes (see `troubles`)."""


class Parts:
    """The models, tools and hooks of one handler, with kill points."""

    def __init__(self, scenario: Scenario, agent_id: UUID, stack: AsyncExitStack) -> None:
        from openai import AsyncOpenAI

        self.scenario = scenario
        self.folder = scenario.folder
        self.agent_id = agent_id
        self.stack = stack
        self.client = AsyncOpenAI(base_url=scenario.base_url, api_key="test", max_retries=0)

    def model(self, name: str) -> Model:
        """Return a model of the server, with kill points around its requests."""
        from agents import Model, OpenAIChatCompletionsModel, OpenAIResponsesModel

        folder, agent_id = self.folder, self.agent_id
        kind = OpenAIChatCompletionsModel if self.scenario.api == "chat" else OpenAIResponsesModel

        class KillableModel(Model):
            def __init__(self, inner: Model) -> None:
                self.inner, self.model = inner, name

            async def get_response(self, *args: Any, **kwargs: Any) -> Any:
                reach(folder, f"{name} request")
                response = await self.inner.get_response(*args, **kwargs)
                reach(folder, f"{name} answered")
                return response

            async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                reach(folder, f"{name} request")
                async for event in self.inner.stream_response(*args, **kwargs):
                    if event.type == "response.output_text.delta":
                        await self._publish(f"{name} chunk")
                        reach(folder, f"{name} chunk")
                    if event.type == "response.completed":
                        reach(folder, f"{name} answered")
                    yield event

            async def _publish(self, place: str) -> None:
                """Let followers have the text before a death."""
                if is_planned(folder, place):
                    for _ in range(10):
                        await asyncio.sleep(0)
                    await activity.aflush_stream()

            async def close(self) -> None:
                await self.inner.close()

        assert agent_id
        return KillableModel(kind(name, self.client))

    def tool(self, name: str, **options: Any) -> Any:
        """Return a tool with a side effect."""
        from agents import function_tool

        folder, trouble = self.folder, self.scenario.trouble

        @function_tool(name_override=name, **options)
        async def work(item: str) -> str:
            """Work on an item."""
            reach(folder, f"{name} {item} before")
            if trouble == "hoard":
                await asyncio.to_thread(hoard_memory, folder)
            await asyncio.to_thread(effect, folder, f"{name} {item}")
            reach(folder, f"{name} {item} after")
            return f"{item} is done"

        return work

    def hooks(self) -> Any:
        """Return hooks with kill points after the commits."""
        from agents import RunHooks

        folder, trouble = self.folder, self.scenario.trouble

        class Hooks(RunHooks[Any]):
            async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
                reach(folder, f"{agent.name} committed")

            async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
                reach(folder, f"{tool.name} committed")
                if trouble == "memory_error":
                    exceed_address_space(folder)

        return Hooks()

    def agent(self, name: str, **options: Any) -> Agent[Any]:
        """Return an agent with its model. Its instructions differ in each attempt."""
        from agents import Agent

        model = self.model(options.pop("model", name))
        return Agent(name, instructions=f"The time is {datetime.now()}.", model=model, **options)

    def session(self) -> DjangoSession | None:
        """Return the session of the scenario, with kill points around its writes, or None."""
        if not self.scenario.name.startswith("session"):
            return None
        folder = self.folder

        class KillableSession(DjangoSession):
            async def add_items(self, items: Any) -> None:
                reach(folder, "add before")
                await super().add_items(items)
                reach(folder, "add after")

        return KillableSession(folder.rpartition("/")[2])


async def _one(parts: Parts) -> Agent[Any]:
    return parts.agent("boss", tools=[parts.tool("look_up")])


async def _handoffs(parts: Parts) -> Agent[Any]:
    alpha = parts.agent("alpha", model="boss", tools=[parts.tool("look_up")])
    beta = parts.agent("beta", model="boss", tools=[parts.tool("check")], handoffs=[alpha])
    alpha.handoffs = [beta]
    return alpha


async def _agents_as_tools(parts: Parts) -> Agent[Any]:
    helpers = [parts.agent(name, tools=[parts.tool("look_up")]) for name in ("one", "two")]
    return parts.agent("boss", tools=[helper.as_tool(f"ask_{helper.name}", "Asks.") for helper in helpers])


async def _guardrails(parts: Parts) -> Agent[Any]:
    from agents import GuardrailFunctionOutput, InputGuardrail, OutputGuardrail, Runner

    guard, censor = parts.agent("guard"), parts.agent("censor")

    async def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        seen = await Runner.run(guard, "Is it harmless?")
        return GuardrailFunctionOutput(seen.final_output, tripwire_triggered=seen.final_output != "Harmless.")

    async def read(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        seen = await Runner.run(censor, f"Is this polite? {output}")
        return GuardrailFunctionOutput(seen.final_output, tripwire_triggered=seen.final_output != "Polite.")

    return parts.agent(
        "boss",
        tools=[parts.tool("look_up")],
        input_guardrails=[InputGuardrail(check)],
        output_guardrails=[OutputGuardrail(read)],
    )


async def _mcp(parts: Parts) -> Agent[Any]:
    from agents.mcp import MCPServerStdio

    folder = parts.folder

    class KillableServer(MCPServerStdio):
        async def call_tool(self, tool_name: str, *args: Any, **kwargs: Any) -> Any:
            reach(folder, f"{tool_name} before")
            result = await super().call_tool(tool_name, *args, **kwargs)
            reach(folder, f"{tool_name} after")
            return result

    program = str(__file__).replace("durable.py", "notes_server.py")
    server = KillableServer(
        params={"command": sys.executable, "args": [program, folder]}, client_session_timeout_seconds=60
    )
    await parts.stack.enter_async_context(server)
    return parts.agent("boss", mcp_servers=[server])


async def _approval(parts: Parts) -> Agent[Any]:
    return parts.agent("boss", tools=[parts.tool("send", needs_approval=True)])


async def _nested_approval(parts: Parts) -> Agent[Any]:
    clerk = parts.agent("one", tools=[parts.tool("send", needs_approval=True), parts.tool("look_up")])
    return parts.agent("boss", tools=[clerk.as_tool("ask_one", "Asks.")])


async def _changed_code(parts: Parts) -> Agent[Any]:
    """Return an agent which a deploy after the death of the process has renamed, and which has another tool."""
    if has_died(parts.folder):
        return parts.agent("clerk", model="boss", tools=[parts.tool("search")])
    return parts.agent("boss", tools=[parts.tool("look_up")])


async def _session_approval(parts: Parts) -> Agent[Any]:
    return parts.agent("boss", tools=[parts.tool("look_up"), parts.tool("send", needs_approval=True)])


BUILDERS = {
    "handoffs": _handoffs,
    "agents_as_tools": _agents_as_tools,
    "guardrails": _guardrails,
    "mcp": _mcp,
    "approval": _approval,
    "changed_code": _changed_code,
    "nested_approval": _nested_approval,
    "session_approval": _session_approval,
}


@task("durable_agent", max_retries=2, backoff=lambda *_: 0.0)
async def durable_agent(agent_id: UUID, context: Scenario, attempt: Attempt) -> str:
    reach(context.folder, "start")
    async with AsyncExitStack() as stack:
        parts = Parts(context, agent_id, stack)
        try:
            result = await _result(parts)
        except BaseException as error:
            reach(context.folder, type(error).__name__)
            raise
        await parts.client.close()
    reach(context.folder, "end")
    return result


async def _result(parts: Parts) -> str:
    from django_agentexec import OpenAIRunner

    name, options = parts.scenario.name, parts.scenario
    if name == "pydantic_ai":
        return await run_pydantic_agent(parts.agent_id, parts.client, parts.folder)
    runner = OpenAIRunner(parts.agent_id, stream=name != "gather", in_doubt=options.in_doubt)
    if name == "gather":
        return await _gathered(parts, runner)
    agent = await BUILDERS.get(name, _one)(parts)
    given = "Continue." if name == "changed_code" and has_died(parts.folder) else "Go."
    run = await runner.run(agent, given, hooks=parts.hooks(), session=parts.session())
    return str(run.final_output)


async def _gathered(parts: Parts, runner: Any) -> str:
    async def one(name: str) -> str:
        agent = parts.agent(name, tools=[parts.tool("look_up")])
        return str((await runner.run(agent, f"Go, {name}.", key=name, hooks=parts.hooks())).final_output)

    return " ".join(await asyncio.gather(one("one"), one("two")))
