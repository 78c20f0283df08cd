"""A turn of a conversation whose process dies at given places."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django_agentexec import Attempt, DjangoSession, task

from .orchestration import die_at
from .work import Work, note


class DyingSession(DjangoSession):
    """A session whose process dies before and after its writes."""

    writes = 0

    async def add_items(self, items: Any) -> None:
        place, self.writes = f"add {self.writes}", self.writes + 1
        die_at(f"before {place}")
        await super().add_items(items)
        die_at(f"after {place}")

    async def clear_session(self) -> None:
        die_at("before clear")
        await super().clear_session()
        die_at("after clear")


@task("converse")
async def converse(agent_id: UUID, context: Work, attempt: Attempt) -> str:
    """Let an agent answer with the help of a tool, then shorten the history to a summary and the answer."""
    # Here, not above: the other tests' pools need not load the SDK.
    from agents import Agent, function_tool
    from agents.testing import ScriptedModel, assistant_message, function_call

    from django_agentexec import OpenAIRunner
    from django_agentexec.models import AgentCall, CallKind, CallState

    @function_tool
    def look_up() -> str:
        """Look it up."""
        note(context.journal, "tool", context.name, agent_id)
        return "Acme is fine"

    answers = [[function_call("look_up", {}, call_id="1")], [assistant_message(f"answer {context.name}")]]
    paid = AgentCall.objects.filter(activity_id=agent_id, kind=CallKind.MODEL, state=CallState.DONE)
    model = ScriptedModel(answers[await paid.acount() :])
    session = DyingSession.for_attempt(attempt)
    before = await session.get_items()
    agent = Agent("Clerk", model=model, tools=[look_up])
    await OpenAIRunner(agent_id).run(agent, f"question {context.name}", session=session)
    *_, answer = await session.get_items()
    await session.clear_session()
    await session.add_items([{"role": "user", "content": f"summary of {len(before)} items"}, answer])
    die_at("end")
    return str(len(before))
