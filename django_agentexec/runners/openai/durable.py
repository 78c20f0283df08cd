"""Durable copies of agents and run configurations, and the results in terms of the user's own agents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from agents import Agent, FunctionTool, Handoff, Model, RunConfig, RunState
from agents.items import RunItem
from agents.result import RunResultBase
from pydantic_core import to_jsonable_python

from django_agentexec.budgets.calls import RunCharge
from django_agentexec.calls.halting import Halted
from django_agentexec.calls.position import Position, current_position
from django_agentexec.models import CallState

from .approvals import Policies
from .cached import ModelCache
from .handoffs import durable_handoff
from .limited import limited
from .model import DurableModel, DurableProvider, ShowReplayed, own_provider
from .silent_hooks import PUBLIC_AGENT, SilentAgentHooks, own_agent
from .tool_names import ToolNames
from .tools import durable_tool, missing_tool

agents_of_run: ContextVar[DurableAgents | None] = ContextVar("agentexec_agents_of_run", default=None)
"""The copies of the enclosing durable run, which the runs inside it share."""


class DurableAgents:
    """Copies of the agents of one run, with recorded models and tools.

    `show_replayed` receives each answer that is replayed, `tool_names` the tools that agents list; `run_charge` is the
    budget of the run, and `cache` keeps the answers of all models.
    """

    def __init__(
        self,
        policies: Policies,
        show_replayed: ShowReplayed | None = None,
        tool_names: ToolNames | None = None,
        run_charge: RunCharge | None = None,
        cache: ModelCache | None = None,
    ) -> None:
        self._policies = policies
        self._tool_names = tool_names
        self._show_replayed = show_replayed
        self._run_charge = run_charge
        self._cache = cache
        self._copies: dict[int, Agent[Any]] = {}

    def copy_of(self, agent: Agent[Any]) -> Agent[Any]:
        """Return the durable copy of an agent; its handoffs lead to durable copies, too."""
        if PUBLIC_AGENT in agent.__dict__:
            return agent
        if id(agent) in self._copies:
            return self._copies[id(agent)]
        # A plain copy keeps subclasses with an `__init__` of their own.
        durable = self._copies[id(agent)] = copy.copy(agent)
        values = durable.__dict__
        values[PUBLIC_AGENT] = agent
        if isinstance(agent.model, Model):
            values["model"] = self.wrap_model(agent.model)
        if agent.hooks is not None:
            values["hooks"] = SilentAgentHooks(agent.hooks)
        if callable(agent.instructions):
            values["instructions"] = _with_own_agent(agent.instructions, agent)
        values["get_all_tools"] = self._tools_of(durable)
        values["handoffs"] = [self._handoff(each) for each in agent.handoffs]
        return durable

    def config(self, config: RunConfig | Mapping[str, Any] | None) -> RunConfig | dict[str, Any]:
        """Return a run configuration with recorded models; a dictionary for a dictionary."""
        given = config if isinstance(config, RunConfig) else RunConfig(**(config or {}))
        changes: dict[str, Any] = {
            "model_provider": DurableProvider(own_provider(given.model_provider), self.wrap_model)
        }
        if isinstance(given.model, Model):
            changes["model"] = self.wrap_model(given.model)
        if isinstance(config, RunConfig):
            return replace(config, **changes)
        return {**(config or {}), **changes}

    def wrap_model(self, model: Model) -> Model:
        """Return the recorded form of a model."""
        if isinstance(model, DurableModel):
            return model
        return DurableModel(limited(model), self._show_replayed, self._run_charge, self._cache)

    def resumed(self, state: RunState[Any]) -> RunState[Any]:
        """Let a state continue with durable copies."""
        if state._current_agent is not None:
            state._current_agent = self.copy_of(state._current_agent)
        return state

    def _handoff(self, target: Agent[Any] | Handoff[Any, Any]) -> Agent[Any] | Handoff[Any, Any]:
        if isinstance(target, Agent):
            return self.copy_of(target)
        return durable_handoff(target, self.copy_of)

    def _tools_of(self, agent: Agent[Any]) -> Callable[[Any], Any]:
        async def get_all_tools(context: Any) -> list[Any]:
            tools = await type(agent).get_all_tools(agent, context)
            if self._tool_names is not None:
                self._tool_names.listed(own_agent(agent), [tool.name for tool in tools])
            durable = [durable_tool(tool, agent.name, self._policies) for tool in tools]
            return [*durable, *self._missing(agent, durable)]

        return get_all_tools

    def _missing(self, agent: Agent[Any], tools: list[Any]) -> list[FunctionTool]:
        """Return stubs for the tools and handoffs that the next recorded answer calls and that no longer exist."""
        position = current_position()
        call = position.next_model_call() if position is not None else None
        if call is None:
            return []
        known = {tool.name for tool in tools} | {_handoff_name(each) for each in agent.handoffs}
        answer: Any = call.output
        called = {item["name"] for item in answer["output"] if item.get("type") == "function_call"}
        return [
            durable_tool(missing_tool(name), agent.name, self._policies)  # type: ignore[misc]  # a function tool
            for name in sorted(called - known)
        ]


def _with_own_agent(instructions: Any, agent: Agent[Any]) -> Callable[[Any, Any], Any]:
    def own_instructions(context: Any, _: Any) -> Any:
        return instructions(context, agent)

    return own_instructions


def _handoff_name(target: Agent[Any] | Handoff[Any, Any]) -> str:
    return Handoff.default_tool_name(target) if isinstance(target, Agent) else target.tool_name


def with_own_agents(result: Any) -> None:
    """Replace durable copies in a result by the user's agents."""
    for name in ("current_agent", "_last_agent"):
        if isinstance(result.__dict__.get(name), Agent):
            setattr(result, name, own_agent(result.__dict__[name]))
    for item in result.new_items:
        _restore(item)


def _restore(item: RunItem) -> None:
    for name in ("agent", "source_agent", "target_agent"):
        value = item.__dict__.get(name)
        if isinstance(value, Agent) and PUBLIC_AGENT in value.__dict__:
            setattr(item, name, own_agent(value))


def end_run(position: Position, result: RunResultBase | None, error: BaseException | None) -> None:
    """Record the end of a run: its final output, or its error. A run that waits for a decision has not ended."""
    if error is not None:
        if isinstance(error, Exception) and not isinstance(error, Halted):
            position.end(CallState.FAILED, error=f"{type(error).__name__}: {error}")
    elif result is not None and not getattr(result, "interruptions", None):
        output = result.final_output
        position.end(CallState.DONE, output=output if isinstance(output, str) else _shown(output))


def _shown(output: Any) -> Any:
    return to_jsonable_python(output, fallback=repr, serialize_unknown=True)
