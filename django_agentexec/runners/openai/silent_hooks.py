"""Hooks of durable runs: silent during replay, and called with the user's own agents."""

from __future__ import annotations

from typing import Any

from agents import Agent, AgentHooks, RunHooks

from django_agentexec.calls.position import Position, current_position
from django_agentexec.models import AgentCall, CallState

from .wire import stored_output

PUBLIC_AGENT = "_agents_public_agent"  # the attribute by which the SDK finds the agent behind an execution copy


def own_agent(agent: Any) -> Any:
    """Return the user's agent behind a durable copy."""
    return getattr(agent, PUBLIC_AGENT, agent)


class SilentHooks(RunHooks[Any]):
    """Passes the events of a run to `inner`, except those that an earlier attempt has passed.

    It also records the outputs of tools that the SDK stops after their time limit.
    """

    def __init__(self, inner: RunHooks[Any] | None) -> None:
        self._inner = inner if inner is not None else RunHooks()

    async def on_llm_start(self, context: Any, agent: Agent[Any], system_prompt: Any, input_items: Any) -> None:
        position = current_position()
        if position is not None:
            position.agent = agent.name
        if not _replays_next():
            await self._inner.on_llm_start(context, own_agent(agent), system_prompt, input_items)

    async def on_llm_end(self, context: Any, agent: Agent[Any], response: Any) -> None:
        if not _is_replaying():
            await self._inner.on_llm_end(context, own_agent(agent), response)

    async def on_agent_start(self, context: Any, agent: Agent[Any]) -> None:
        if not _replays_next():
            await self._inner.on_agent_start(context, own_agent(agent))

    async def on_agent_end(self, context: Any, agent: Agent[Any], output: Any) -> None:
        if not _has_ended():
            await self._inner.on_agent_end(context, own_agent(agent), output)

    async def on_handoff(self, context: Any, from_agent: Agent[Any], to_agent: Agent[Any]) -> None:
        if not _is_replaying():
            await self._inner.on_handoff(context, own_agent(from_agent), own_agent(to_agent))

    async def on_tool_start(self, context: Any, agent: Agent[Any], tool: Any) -> None:
        if not _is_replayed(_call_of(context)):
            await self._inner.on_tool_start(context, own_agent(agent), tool)

    async def on_tool_end(self, context: Any, agent: Agent[Any], tool: Any, result: Any) -> None:
        position, call = current_position(), _call_of(context)
        if _is_replayed(call):
            return
        if position is not None and call is not None and call.state == CallState.STARTED:
            call.state, call.output = CallState.DONE, stored_output(result)
            await position.journal.finish(call)
        await self._inner.on_tool_end(context, own_agent(agent), tool, result)


class SilentAgentHooks(AgentHooks[Any]):
    """Passes the events of an agent to `inner`, except those that an earlier attempt has passed."""

    def __init__(self, inner: AgentHooks[Any]) -> None:
        self._inner = inner

    async def on_start(self, context: Any, agent: Agent[Any]) -> None:
        if not _replays_next():
            await self._inner.on_start(context, own_agent(agent))

    async def on_end(self, context: Any, agent: Agent[Any], output: Any) -> None:
        if not _has_ended():
            await self._inner.on_end(context, own_agent(agent), output)

    async def on_handoff(self, context: Any, agent: Agent[Any], source: Agent[Any]) -> None:
        if not _is_replaying():
            await self._inner.on_handoff(context, own_agent(agent), own_agent(source))

    async def on_tool_start(self, context: Any, agent: Agent[Any], tool: Any) -> None:
        if not _is_replayed(_call_of(context)):
            await self._inner.on_tool_start(context, own_agent(agent), tool)

    async def on_tool_end(self, context: Any, agent: Agent[Any], tool: Any, result: Any) -> None:
        if not _is_replayed(_call_of(context)):
            await self._inner.on_tool_end(context, own_agent(agent), tool, result)

    async def on_llm_start(self, context: Any, agent: Agent[Any], system_prompt: Any, input_items: Any) -> None:
        if not _replays_next():
            await self._inner.on_llm_start(context, own_agent(agent), system_prompt, input_items)

    async def on_llm_end(self, context: Any, agent: Agent[Any], response: Any) -> None:
        if not _is_replaying():
            await self._inner.on_llm_end(context, own_agent(agent), response)


def _call_of(context: Any) -> AgentCall | None:
    position, call_id = current_position(), getattr(context, "tool_call_id", None)
    return position.tool_call(call_id) if position is not None and call_id else None


def _is_replayed(call: AgentCall | None) -> bool:
    position = current_position()
    return bool(position and call and call.state == CallState.DONE and position.journal.is_foreign(call))


def _replays_next() -> bool:
    position = current_position()
    return position is not None and position.next_model_call() is not None


def _is_replaying() -> bool:
    position = current_position()
    return position is not None and position.is_replaying


def _has_ended() -> bool:
    position: Position | None = current_position()
    return bool(position and position.run and position.run.state == CallState.DONE)
