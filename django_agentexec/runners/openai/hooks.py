"""Hooks of a run: log lines for agents, handoffs and tool calls, combined with the hooks of the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agents import (
    Agent,
    AgentHookContext,
    ModelResponse,
    RunContextWrapper,
    RunHooks,
    Tool,
    TResponseInputItem,
)
from agents.lifecycle import RunHooksBase

from django_agentexec.activity.commands import update_soon
from django_agentexec.activity.log_lines import messages_of_type
from django_agentexec.current import OwningAttempt
from django_agentexec.models import LineType

Log = Callable[[str], Awaitable[None]]


def queued_log(attempt: OwningAttempt) -> Log:
    """Return a function that queues a log line of a recorded run, instead of waiting for its commit.

    The start of the call that follows shares its transaction, and is refused if the run must end.
    """

    async def log(message: str) -> None:
        update_soon(attempt, message)

    return log


class LoggingHooks(RunHooks[Any]):
    """Hooks that log a run with the detail of `level`, a value of the setting `RUNNER_LOG`.

    Calls of the tool named `silent_tool` are not logged, because the tool logs a line. `check` is called before each
    request to a model and stops the run by raising an exception.
    """

    def __init__(self, log: Log, level: str, silent_tool: str, check: Callable[[], None]) -> None:
        self._log = log
        self._level = level
        self._silent_tool = silent_tool
        self._check = check

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        self._check()

    async def on_agent_start(self, context: AgentHookContext[Any], agent: Agent[Any]) -> None:
        if self._level != "none":
            await self._log(f"Agent {agent.name} started.")

    async def on_handoff(self, context: RunContextWrapper[Any], from_agent: Agent[Any], to_agent: Agent[Any]) -> None:
        if self._level == "steps":
            with messages_of_type(LineType.HANDOFF):
                await self._log(f"Agent {from_agent.name} hands over to {to_agent.name}.")

    async def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> None:
        if self._level == "steps" and tool.name != self._silent_tool:
            await self._log(f"Agent {agent.name} calls {tool.name}.")


class JoinedHooks(RunHooks[Any]):
    """Several hooks combined in one object, called in order. The SDK accepts a single object."""

    def __init__(self, *hooks: RunHooksBase[Any, Any]) -> None:
        for each in hooks:
            # The SDK validates the type of the hooks object, but not the hooks inside this object.
            if not isinstance(each, RunHooksBase):
                raise TypeError(
                    f"hooks is a {type(each).__name__}, but must be an agents.RunHooks; "
                    "hooks of a single agent belong on it: Agent(..., hooks=...)."
                )
        self._hooks = hooks

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        for each in self._hooks:
            await each.on_llm_start(context, agent, system_prompt, input_items)

    async def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> None:
        for each in self._hooks:
            await each.on_llm_end(context, agent, response)

    async def on_agent_start(self, context: AgentHookContext[Any], agent: Agent[Any]) -> None:
        for each in self._hooks:
            await each.on_agent_start(context, agent)

    async def on_agent_end(self, context: AgentHookContext[Any], agent: Agent[Any], output: Any) -> None:
        for each in self._hooks:
            await each.on_agent_end(context, agent, output)

    async def on_handoff(self, context: RunContextWrapper[Any], from_agent: Agent[Any], to_agent: Agent[Any]) -> None:
        for each in self._hooks:
            await each.on_handoff(context, from_agent, to_agent)

    async def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> None:
        for each in self._hooks:
            await each.on_tool_start(context, agent, tool)

    async def on_tool_end(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: object) -> None:
        for each in self._hooks:
            await each.on_tool_end(context, agent, tool, result)
