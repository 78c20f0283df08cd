"""An agent whose calls of a model have a price. Loads the agents SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelSettings, Usage, function_tool
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call

from .work import Work, note

MAX_TOKENS = 1_000  # at 30 dollars for a million: 0.03 dollars a call


class Paid(Model):
    """A model that calls the tool `step` until it was called `steps` times. Each call has `MAX_TOKENS` of output.

    It keeps no state in its process, and notes each call in the journal of the test.
    """

    model = "paid"

    def __init__(self, work: Work, agent_id: UUID, steps: int) -> None:
        self._work, self._agent_id, self._steps = work, agent_id, steps

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        return await self._script().get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return self._script().stream_response(*args, **kwargs)

    def _script(self) -> ScriptedModel:
        usage = Usage(requests=1, output_tokens=MAX_TOKENS, total_tokens=MAX_TOKENS)
        return ScriptedModel([ModelStep.respond(self._respond)], default_usage=usage)

    async def _respond(self, call: ModelCall) -> ModelStep:
        items = [] if isinstance(call.input, str) else call.input
        done = sum(1 for item in items if item.get("type") == "function_call_output")
        await asyncio.to_thread(note, self._work.journal, f"call {done}", self._work.name, self._agent_id)
        await asyncio.sleep(self._work.seconds)
        if done >= self._steps:
            return ModelStep(output=[assistant_message(f"{done} steps")])
        return ModelStep(output=[function_call("step", {}, call_id=f"call_{done}")])


def paid_agent(work: Work, agent_id: UUID, steps: int, **settings: Any) -> Agent[Any]:
    """Return an agent that makes `steps + 1` calls of its model."""

    @function_tool
    def step() -> str:
        """Do one step."""
        note(work.journal, "step", work.name, agent_id)
        return "done"

    limits = ModelSettings(max_tokens=MAX_TOKENS, **settings)
    return Agent("Clerk", model=Paid(work, agent_id, steps), tools=[step], model_settings=limits)
