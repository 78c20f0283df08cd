"""How durable runs resume: calls in doubt, time limits, pipelines, children, and changed handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel
from pydantic import BaseModel

from django_agentexec import Attempt, OpenAIRunner, Pipeline, approvals, step, task
from django_agentexec.calls.recording import UNKNOWN_OUTCOME
from django_agentexec.models import AgentCall, Approval, ApprovalKind, ApprovalStatus, CallKind, Status, WaitingFor
from tests.support.contexts import Empty
from tests.support.decisions import decide
from tests.support.durable_agents import DONE, drained, run
from tests.support.scripted_models import call, model, say, tool_outputs

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


@function_tool
def pay(amount: int) -> str:
    """Pay."""
    DONE["paid"] += 1
    return f"paid {amount}"


async def die_during_the_tool(agent_id: UUID) -> None:
    """Leave the rows as a process does that dies during the first call of a tool, and end the attempt."""
    DONE["died"] += 1
    if DONE["died"] == 1:
        tools = AgentCall.objects.filter(activity_id=agent_id, kind=CallKind.TOOL)
        await tools.aupdate(state="started", output=None, finished_at=None)
        await AgentCall.objects.filter(activity_id=agent_id, kind=CallKind.MODEL, ordinal__gt=0).adelete()
        raise ConnectionError("the process died")


def payment(scripted: ScriptedModel, in_doubt: str | Mapping[str, str]) -> Callable[..., Any]:
    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[pay])
        result = await OpenAIRunner(agent_id, in_doubt=in_doubt).run(agent, "Pay 5.")
        await die_during_the_tool(agent_id)
        return str(result.final_output)

    return handler


def test_a_call_in_doubt_is_made_again_by_default() -> None:
    scripted = model([call("pay", "1", amount=5)], say("lost"), say("Paid."))

    row = run(payment(scripted, "rerun"))

    assert (row.status, row.result, DONE["paid"]) == (Status.COMPLETE, "Paid.", 2), row.error


def test_an_unknown_tool_in_the_policies_fails_before_the_first_call() -> None:
    scripted = model(say("Paid."))

    row = run(payment(scripted, {"pya": "ask"}))

    assert (row.status, len(scripted.calls), row.attempt) == (Status.ERROR, 0, 1)
    assert "names 'pya', but agent 'Clerk'" in row.error


@pytest.mark.parametrize("policy", ["fail", {"pay": "fail"}])
def test_a_call_in_doubt_may_be_reported_as_such(policy: Any) -> None:
    scripted = model([call("pay", "1", amount=5)], say("lost"), say("I do not know."))

    row = run(payment(scripted, policy))

    assert (row.status, DONE["paid"]) == (Status.COMPLETE, 1), row.error
    assert tool_outputs(scripted) == [UNKNOWN_OUTCOME]
    assert AgentCall.objects.get(kind=CallKind.TOOL).state == "in_doubt"
    assert AgentCall.objects.get(kind=CallKind.TOOL).duration is None  # the process died at an unknown time


@pytest.mark.parametrize(
    ("status", "answer", "paid", "output"),
    [
        (ApprovalStatus.APPROVED, "paid 5", 1, "paid 5"),
        (ApprovalStatus.APPROVED, None, 2, "paid 5"),
        (ApprovalStatus.REJECTED, None, 1, UNKNOWN_OUTCOME),
    ],
)
def test_a_person_may_decide_about_a_call_in_doubt(
    status: ApprovalStatus, answer: str | None, paid: int, output: str
) -> None:
    scripted = model([call("pay", "1", amount=5)], say("lost"), say("Settled."))

    row = run(payment(scripted, {"pay": "ask"}))
    assert (row.is_suspended, Approval.objects.get().kind) == (True, ApprovalKind.IN_DOUBT)
    decide(status=status, answer=answer)
    row = drained()

    assert (row.status, row.result, DONE["paid"]) == (Status.COMPLETE, "Settled.", paid), row.error
    assert tool_outputs(scripted) == [output]
    settled = AgentCall.objects.get(kind=CallKind.TOOL)
    assert (settled.duration is None) == (paid == 1)  # the wait for the decision is no duration
    assert settled.started_at >= Approval.objects.get().decided_at


class Receipt(BaseModel):
    amount: int


def test_a_stated_output_that_the_tool_cannot_have_is_asked_for_again() -> None:
    scripted = model([call("pay", "1", amount=5)], say("lost"), say("Settled."))

    @function_tool(name_override="pay", output_type=Receipt)
    def pay_with_receipt(amount: int) -> Receipt:
        return Receipt(amount=amount)

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[pay_with_receipt])
        result = await OpenAIRunner(agent_id, in_doubt={"pay": "ask"}).run(agent, "Pay 5.")
        await die_during_the_tool(agent_id)
        return str(result.final_output)

    run(handler)
    approvals.answer(Approval.objects.get().pk, "paid 5")
    assert drained().waiting_for == WaitingFor.APPROVAL
    again = Approval.objects.exclude(title="").get()
    assert (again.kind, again.is_pending) == (ApprovalKind.IN_DOUBT, True)
    assert again.title.startswith("pay: the stated output cannot be used (ValidationError: ")
    approvals.answer(again.pk, {"amount": 5})
    row = drained()

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Settled.", 2), row.error
    assert tool_outputs(scripted) == ['{"amount":5}']


def test_a_time_limit_keeps_the_calls_before_it() -> None:
    scripted = model([call("pay", "1", amount=5)], say("Paid."))

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> str:
        result = await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted, tools=[pay]), "Pay 5.")
        DONE["attempts"] += 1
        if DONE["attempts"] == 1:
            await asyncio.Event().wait()
        return str(result.final_output)

    row = run(handler, timeout=1.0)

    assert (row.status, row.result, DONE["paid"], len(scripted.calls)) == (Status.COMPLETE, "Paid.", 1, 2), row.error


def test_children_between_runs_are_awaited_without_paying_twice() -> None:
    scripted = model(say("Question"), say("Answer"))

    async def help(agent_id: UUID, context: Empty) -> str:
        DONE["helped"] += 1
        return "help"

    helper = task("helper")(help)

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> str:
        runner, agent = OpenAIRunner(agent_id), Agent("Clerk", model=scripted)
        first = await runner.run(agent, "First.")
        child = await attempt.aspawn(helper, Empty())
        (answer,) = await attempt.agather(child)
        second = await runner.run(agent, f"With {answer}.")
        return f"{first.final_output} {answer} {second.final_output}"

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Question help Answer"), row.error
    assert (len(scripted.calls), DONE["helped"]) == (2, 1)


def test_a_tool_that_was_added_is_offered_to_the_calls_that_follow() -> None:
    scripted = model([call("pay", "1", amount=5)], ConnectionError("gone"), [call("extra", "2")], say("Fine."))

    @function_tool
    def extra() -> str:
        """Do more."""
        DONE["extra"] += 1
        return "more"

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> str:
        tools = [pay] if attempt.number == 1 else [pay, extra]
        result = await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted, tools=tools), "Go.")
        return str(result.final_output)

    row = run(handler)

    assert (row.status, DONE["paid"], DONE["extra"]) == (Status.COMPLETE, 1, 1), row.error
    assert len(scripted.calls) == 4


def test_a_side_effect_of_a_handoff_happens_once() -> None:
    from agents import handoff

    scripted = model([call("transfer_to_closer", "1")], say("Closed."))

    async def note(context: Any) -> None:
        DONE["noted"] += 1

    async def handler(agent_id: UUID, context: Empty) -> str:
        closer = Agent("closer", model=scripted)
        boss = Agent("Boss", model=scripted, handoffs=[handoff(closer, on_handoff=note)])
        result = await OpenAIRunner(agent_id).run(boss, "Go.")
        assert result.last_agent is closer
        DONE["fail"] += 1
        if DONE["fail"] == 1:
            raise ConnectionError("after the run")
        return str(result.final_output)

    row = run(handler)

    assert (row.status, DONE["noted"], len(scripted.calls)) == (Status.COMPLETE, 1, 2), row.error


class Said(BaseModel):
    text: str


def test_a_pipeline_step_that_is_repeated_keeps_its_calls() -> None:
    scripted = model(say("first"), [call("pay", "1", amount=5)], say("second"))

    async def answer(agent_id: UUID, question: str) -> str:
        agent = Agent("Clerk", model=scripted, tools=[pay])
        return str((await OpenAIRunner(agent_id).run(agent, question)).final_output)

    class Steps(Pipeline, name="clerk", max_retries=3, backoff=lambda *_: 0.0):
        @step(0)
        async def one(self, context: Empty) -> Said:
            return Said(text=await answer(self.attempt.agent_id, "One."))

        @step(1)
        async def two(self, said: Said) -> Said:
            text = await answer(self.attempt.agent_id, "Two.")
            DONE["fail"] += 1
            if DONE["fail"] == 1:
                raise ConnectionError("after the run of the second step")
            return Said(text=f"{said.text} {text}")

    Steps.enqueue(Empty())
    row = drained()

    assert (row.status, row.result) == (Status.COMPLETE, {"text": "first second"}), row.error
    assert (len(scripted.calls), DONE["paid"]) == (3, 1)
    assert set(AgentCall.objects.values_list("path", flat=True)) == {"one", "two"}
