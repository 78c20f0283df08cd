"""An agent whose tool needs an approval, for tests with real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from agents import Agent, Model, function_tool
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call

from django_agentexec import OpenAIRunner, task

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


@task("approved_work", max_retries=2, backoff=lambda *_: 0.0)
async def approved_work(agent_id: UUID, context: Work) -> str:
    @function_tool(needs_approval=True)
    def send(to: str) -> str:
        """Send a letter."""
        note(context.journal, "sent", context.name, agent_id)
        return f"sent to {to}"

    note(context.journal, "start", context.name, agent_id)
    agent = Agent("Clerk", model=CallsOnce(), tools=[send])
    return str((await OpenAIRunner(agent_id).run(agent, "Write to Acme.")).final_output)
