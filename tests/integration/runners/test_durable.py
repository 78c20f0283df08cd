"""Durable runs: a later attempt repeats no recorded call of a model or tool."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, GuardrailFunctionOutput, InputGuardrail, Runner, function_tool, handoff

from django_agentexec import Attempt, OpenAIRunner, tool_key
from django_agentexec.models import AgentCall, Approval, CallKind, Status
from tests.support.contexts import Empty
from tests.support.durable_agents import DONE, fail_once, run
from tests.support.scripted_models import call, model, requests, say

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


@function_tool
def look_up(name: str) -> str:
    """Look a name up."""
    DONE[f"look_up {name}"] += 1
    DONE[f"key {tool_key()}"] += 1
    return f"{name} is fine"


def test_a_retry_repeats_no_model_call_and_no_tool() -> None:
    scripted = model([call("look_up", "1", name="Acme")], [call("look_up", "2", name="Beta")], say("Both are fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[look_up])
        result = await OpenAIRunner(agent_id).run(agent, "Check them.")
        assert result.last_agent is agent
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Both are fine.", 2), row.error
    assert requests(scripted) == [3]
    assert (DONE["look_up Acme"], DONE["look_up Beta"]) == (1, 1)
    kinds = list(AgentCall.objects.of(row.agent_id).values_list("kind", "name", "state"))
    assert kinds == [
        ("agent", "", "done"),
        ("model", "ScriptedModel", "done"),
        ("tool", "look_up", "done"),
        ("model", "ScriptedModel", "done"),
        ("tool", "look_up", "done"),
        ("model", "ScriptedModel", "done"),
    ]
    assert row.usage.get("requests") == 3


def test_a_failure_between_calls_resumes_there() -> None:
    scripted = model([call("look_up", "1", name="Acme")], ConnectionError("gone"), say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[look_up])
        return str((await OpenAIRunner(agent_id).run(agent, "Check.")).final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Fine.")
    assert requests(scripted) == [3]
    assert DONE["look_up Acme"] == 1


@pytest.mark.parametrize(("records", "percentage"), [(True, 60), (False, 0)])
def test_an_attempt_that_replays_calls_begins_with_the_last_percentage(records: bool, percentage: int) -> None:
    scripted = model(say("Fine."), say("Fine."))

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> str:
        result = await OpenAIRunner(agent_id, durable=records).run(Agent("Clerk", model=scripted), "Check.")
        if attempt.number == 1:
            await attempt.aprogress("Checked", 60)
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.error
    starts = row.logs.filter(message="Task started.").order_by("id").values_list("percentage", flat=True)
    assert list(starts) == [0, percentage]


def test_a_subclass_receives_the_log_lines_of_a_durable_run() -> None:
    lines: list[str] = []

    class Listening(OpenAIRunner):
        async def log(self, message: str, percentage: int | None = None) -> None:
            lines.append(message)
            await super().log(message, percentage)

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await Listening(agent_id).run(Agent("Clerk", model=model(say("Fine."))), "Check.")).final_output)

    row = run(handler)

    assert lines == ["Agent Clerk started."]
    assert "Agent Clerk started." in row.logs.values_list("message", flat=True)


def test_agents_as_tools_handoffs_and_guardrails_replay() -> None:
    helper_model, guard_model = model(say("helped")), model(say("harmless"))
    boss_model, closer_model = (
        model([call("help", "1", input="x")], [call("transfer_to_closer", "2")]),
        model(say("end")),
    )

    async def handler(agent_id: UUID, context: Empty) -> str:
        helper, guard = Agent("Helper", model=helper_model), Agent("Guard", model=guard_model)

        async def check(ctx: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
            seen = await Runner.run(guard, "Is it harmless?")
            return GuardrailFunctionOutput(output_info=seen.final_output, tripwire_triggered=False)

        boss = Agent(
            "Boss",
            model=boss_model,
            tools=[helper.as_tool("help", "Helps.")],
            handoffs=[handoff(Agent("Closer", model=closer_model))],
            input_guardrails=[InputGuardrail(check)],
        )
        result = await OpenAIRunner(agent_id).run(boss, "Go.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "end", 2), row.error
    assert requests(helper_model, guard_model, boss_model, closer_model) == [1, 1, 2, 1]
    paths = set(AgentCall.objects.filter(kind=CallKind.AGENT).values_list("path", "agent"))
    assert {agent for _, agent in paths} == {"Boss", "Guard", "Helper"}
    assert ("/0:1", "Helper") in paths


def test_overlapping_runs_find_their_calls_in_any_order() -> None:
    models = {name: model(say(f"{name} answers")) for name in ("a", "b", "c")}

    async def handler(agent_id: UUID, context: Empty) -> dict[str, str]:
        order = ["a", "b", "c"] if DONE["fail"] == 0 else ["c", "b", "a"]
        runner = OpenAIRunner(agent_id)

        async def one(name: str) -> tuple[str, str]:
            result = await runner.run(Agent(name, model=models[name]), f"Question {name}")
            return name, str(result.final_output)

        answers = dict(await asyncio.gather(*map(one, order)))
        fail_once()
        return answers

    row = run(handler)

    assert row.result == {name: f"{name} answers" for name in "abc"}
    assert requests(*models.values()) == [1, 1, 1]


def test_approval_suspends_and_the_decision_resumes() -> None:
    scripted = model([call("send", "1", to="Acme")], say("Sent."))

    @function_tool(needs_approval=True)
    def send(to: str) -> str:
        """Send a letter."""
        DONE["sent"] += 1
        return "sent"

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> str:
        agent = Agent("Clerk", model=scripted, tools=[send])
        return str((await OpenAIRunner(agent_id).run(agent, "Write to Acme.")).final_output)

    row = run(handler)

    assert (row.status, row.is_suspended, row.waiting_for) == (Status.RUNNING, True, "approval")
    approval = Approval.objects.get()
    assert (approval.tool, approval.arguments, approval.agent, approval.status) == (
        "send",
        {"to": "Acme"},
        "Clerk",
        "pending",
    )
    assert DONE["sent"] == 0


def test_a_tool_that_no_longer_exists_is_answered_from_the_record() -> None:
    scripted = model([call("look_up", "1", name="Acme")], say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        tools = [look_up] if DONE["fail"] == 0 else []
        result = await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted, tools=tools), "Check.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Fine."), row.error
    assert requests(scripted) == [2]


def test_changed_instructions_and_input_keep_paid_calls() -> None:
    scripted = model([call("look_up", "1", name="Acme")], say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        now = DONE["fail"]
        agent = Agent("Clerk" if not now else "Renamed", instructions=f"It is {now}.", model=scripted, tools=[look_up])
        result = await OpenAIRunner(agent_id).run(agent, f"Check at {now}.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Fine."), row.error
    assert requests(scripted) == [2]
    assert AgentCall.objects.get(kind=CallKind.AGENT).has_changed


def test_a_sync_handler_and_streamed_text() -> None:
    scripted = model(say("Fine."))

    def handler(agent_id: UUID, context: Empty) -> str:
        result = OpenAIRunner(agent_id, stream=True).run_sync(Agent("Clerk", model=scripted), "Check.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Fine."), row.error
    assert requests(scripted) == [1]
