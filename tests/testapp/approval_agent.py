"""The agent of the task `approved_work`. Loads the agents SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from agents import Agent, Model, function_tool
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call

from .work import Work, note


class CallsOnce(Model):
    """A model that calls the tool `send` first, and then reports its output. It keeps no state in its process."""

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        return await self._step().get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return self._step().stream_response(*args, **kwargs)

    def _step(self) -> ScriptedModel:
        return ScriptedModel([ModelStep.respond(self._respond)])

    async def _respond(self, call: ModelCall) -> ModelStep:
        items = [] if isinstance(call.input, str) else call.input
        outputs = [str(item["output"]) for item in items if item.get("type") == "function_call_output"]  # type: ignore[typeddict-item]
        if outputs:
            return ModelStep(output=[assistant_message(outputs[-1])])
        return ModelStep(output=[function_call("send", {"to": "Acme"}, call_id="call_1")])


def clerk(work: Work, agent_id: UUID) -> Agent[Any]:
    """Return an agent that calls a tool which needs an approval."""

    @function_tool(needs_approval=True)
    def send(to: str) -> str:
        """Send a letter."""
        note(work.journal, "sent", work.name, agent_id)
        return f"sent to {to}"

    return Agent("Clerk", model=CallsOnce(), tools=[send])
