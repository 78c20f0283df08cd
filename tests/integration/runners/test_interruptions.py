"""Runs that wait for an approval: a handler that ignores the approvals fails, a handler that decides them continues."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from django_agentexec import OpenAIRunner, Pipeline, Status, step
from django_agentexec.models import StepRun
from tests.support.contexts import Empty
from tests.support.durable_agents import drained, run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


DELETED: list[str] = []


@function_tool(needs_approval=True)
def delete_file(name: str) -> str:
    """Delete a file."""
    DELETED.append(name)
    return "deleted"


def clerk() -> Agent[None]:
    call = function_call("delete_file", {"name": "a.txt"}, call_id="1")
    return Agent("Clerk", model=ScriptedModel([[call], [assistant_message("Done.")]]), tools=[delete_file])


@pytest.fixture(autouse=True)
def nothing_deleted() -> None:
    DELETED.clear()


@pytest.mark.parametrize("as_text", [True, False])
def test_a_handler_that_ignores_them_fails_at_once(as_text: bool) -> None:
    async def handler(agent_id: UUID, context: Empty) -> str | None:
        result = await OpenAIRunner(agent_id, approvals="return").run(clerk(), "Delete a.txt")
        return str(result.final_output) if as_text else result.final_output

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.ERROR, None, 1)
    assert row.error.startswith(
        "UnhandledInterruption: Agent Clerk needs an approval of delete_file, but the handler has returned"
    )
    assert "result.to_state()" in row.error
    assert DELETED == []


def test_a_handler_that_decides_goes_on() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner, agent = OpenAIRunner(agent_id, approvals="return"), clerk()
        result = await runner.run(agent, "Delete a.txt")
        while result.interruptions:
            state = result.to_state()
            for item in result.interruptions:
                state.approve(item)
            result = await runner.run(agent, state)
        answer: str = result.final_output
        return answer

    row = run(handler)

    assert (row.status, row.result, DELETED) == (Status.COMPLETE, "Done.", ["a.txt"])


def test_a_handler_that_keeps_the_state_for_later_has_decided() -> None:
    async def handler(agent_id: UUID, context: Empty) -> dict[str, Any]:
        result = await OpenAIRunner(agent_id, approvals="return").run(clerk(), "Delete a.txt")
        return {"state": result.to_state().to_string()}

    row = run(handler)

    assert (row.status, DELETED) == (Status.COMPLETE, [])


def test_a_step_that_ignores_them_is_not_kept() -> None:
    class Cleanup(Pipeline, name="clerk"):
        @step(0)
        async def ask(self, context: Empty) -> str:
            result = await OpenAIRunner(self.attempt.agent_id, approvals="return").run(clerk(), "Delete a.txt")
            return str(result.final_output)

        @step(1)
        async def tell(self, answer: str) -> Empty:
            return Empty()

    Cleanup.enqueue(Empty())

    row = drained()
    assert (row.status, row.attempt) == (Status.ERROR, 1)
    assert row.error.startswith("UnhandledInterruption")
    assert list(StepRun.objects.values_list("name", "state")) == [("ask", "error")]


async def test_outside_of_an_attempt_the_caller_has_the_result() -> None:
    from django_agentexec import activity

    result = await OpenAIRunner(await activity.acreate("by_hand")).run(clerk(), "Delete a.txt")

    assert [item.tool_name for item in result.interruptions] == ["delete_file"]
