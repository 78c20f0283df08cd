"""Decisions: approve, reject and answer, each made once, and their effect on the activity that waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel
from asgiref.sync import async_to_sync
from django.utils import timezone

from django_agentexec import (
    AlreadyDecided,
    ApprovalNotFound,
    ApprovalVoid,
    BaseAgentRunner,
    InvalidOption,
    OpenAIRunner,
    activity,
    approval_decided,
    approval_requested,
    approvals,
    task,
)
from django_agentexec.approvals.expiry import expire_due, resume_missed
from django_agentexec.calls.pruning import prune_calls
from django_agentexec.models import Activity, ActivityLog, AgentCall, Approval, CallKind, Status
from django_agentexec.testing import drain, memory_queue
from tests.support.contexts import Empty
from tests.support.scripted_models import call, say, tool_outputs

pytestmark = pytest.mark.django_db(transaction=True)

SENT: list[str] = []


@function_tool(needs_approval=True)
def send(to: str) -> str:
    """Send a letter."""
    SENT.append(to)
    return f"sent to {to}"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    SENT.clear()
    with memory_queue():
        yield


def run(*steps: Any, tools: Any = (send,), **options: Any) -> tuple[Activity, ScriptedModel]:
    scripted = ScriptedModel(list(steps))

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=list(tools))
        return str((await OpenAIRunner(agent_id, **options).run(agent, "Write.")).final_output)

    task("clerk", max_retries=3, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    drain()
    return Activity.objects.get(), scripted


def again(row: Activity) -> Activity:
    drain()
    return Activity.objects.get(pk=row.pk)


def test_an_approved_tool_runs_once_and_the_run_continues() -> None:
    row, scripted = run([call("send", "1", to="Acme")], say("Done."))

    decided = approvals.approve(Approval.objects.get().id, by="shift-lead", reason="Fine.")
    row = again(row)

    assert (row.status, row.result, row.waiting_for) == (Status.COMPLETE, "Done.", ""), row.error
    assert (SENT, len(scripted.calls)) == (["Acme"], 2)
    assert (decided.status, decided.decided_by, decided.reason) == ("approved", "shift-lead", "Fine.")
    line = ActivityLog.objects.get(message__contains="was approved")
    assert (line.message, line.actor) == ("send was approved. Fine.", "shift-lead")


def test_a_rejected_tool_never_runs_and_the_model_reads_the_reason() -> None:
    row, scripted = run([call("send", "1", to="Acme")], say("Not sent."))

    approvals.reject(Approval.objects.get().id, reason="Ask for consent first.")
    row = again(row)

    assert (row.status, SENT) == (Status.COMPLETE, [])
    assert tool_outputs(scripted) == ["Tool execution was not approved. Ask for consent first."]


def test_the_same_decision_again_is_accepted_and_another_is_refused() -> None:
    run([call("send", "1", to="Acme")], say("Done."))
    id = Approval.objects.get().id
    approvals.approve(id, by="first")

    assert approvals.approve(str(id), by="second").decided_by == "first"
    with pytest.raises(AlreadyDecided, match="already approved by first") as refused:
        approvals.reject(id, reason="No.")
    with pytest.raises(AlreadyDecided):
        approvals.approve(id, scope="run")

    assert refused.value.approval.status == "approved"
    assert ActivityLog.objects.filter(message__contains="was approved").count() == 1


def test_unknown_ids_and_impossible_decisions_are_refused() -> None:
    run([call("send", "1", to="Acme")], say("Done."))
    id = Approval.objects.get().id

    for unknown in (uuid4(), "no-id", ""):
        with pytest.raises(ApprovalNotFound, match="There is no approval"):
            approvals.approve(unknown)
    with pytest.raises(InvalidOption, match="once, run"):
        approvals.approve(id, scope="always")
    with pytest.raises(InvalidOption, match="not a question"):
        approvals.answer(id, "Yes.")
    with pytest.raises(InvalidOption, match="2,001 characters"):
        approvals.reject(id, reason="x" * 2001)

    assert Approval.objects.get().is_pending


def test_several_calls_resume_with_the_last_decision() -> None:
    row, scripted = run([call("send", "1", to="Acme"), call("send", "2", to="Beta")], say("Done."))
    first, second = Approval.objects.pending()

    approvals.approve(first.id)
    waiting = again(row)
    assert (waiting.is_suspended, waiting.waiting_for, SENT) == (True, "approval", [])
    approvals.reject(second.id)

    assert again(row).status == Status.COMPLETE
    assert (SENT, len(scripted.calls)) == (["Acme"], 2)


def test_an_approval_of_the_run_covers_waiting_and_later_calls() -> None:
    row, _ = run(
        [call("send", "1", to="Acme"), call("send", "2", to="Beta")], [call("send", "3", to="Gamma")], say("Done.")
    )

    approvals.approve(Approval.objects.pending()[0].id, by="lead", scope="run")

    assert again(row).status == Status.COMPLETE
    assert sorted(SENT) == ["Acme", "Beta", "Gamma"]
    assert set(Approval.objects.values_list("status", "scope", "decided_by")) == {("approved", "run", "lead")}


@pytest.mark.parametrize("end", [activity.cancel, lambda id: activity.error(id, "no"), activity.complete])
def test_an_end_makes_pending_approvals_void(end: Callable[[UUID], None]) -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."))

    end(row.agent_id)

    approval = Approval.objects.get()
    assert (approval.status, Activity.objects.get().waiting_for) == ("void", "")
    with pytest.raises(ApprovalVoid, match="no longer waits"):
        approvals.approve(approval.id)
    again(row)
    assert SENT == []


def test_a_retry_after_a_cancel_asks_again() -> None:
    row, scripted = run([call("send", "1", to="Acme")], say("Done."))
    old = Approval.objects.get()
    activity.cancel(row.agent_id)

    activity.retry(row.agent_id)
    again(row)
    (new,) = Approval.objects.pending()

    assert (new.number, SENT) == (1, [])
    with pytest.raises(ApprovalVoid):
        approvals.approve(old.id)
    approvals.approve(new.id)
    assert again(row).status == Status.COMPLETE
    assert (SENT, len(scripted.calls)) == (["Acme"], 2)


def expired(row: Activity) -> Activity:
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert expire_due() == Approval.objects.count()
    return again(row)


def test_expiry_rejects_by_default() -> None:
    row, scripted = run([call("send", "1", to="Acme")], say("Too late."), approval_timeout=60)

    row = expired(row)

    assert (row.result, SENT) == ("Too late.", [])
    assert tool_outputs(scripted) == ["Tool execution was not approved. Nobody has decided in time."]
    assert Approval.objects.get().status == "expired"


def test_expiry_may_approve() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."), approval_timeout=60, on_expiry="approve")

    assert (expired(row).status, SENT) == (Status.COMPLETE, ["Acme"])


def test_expiry_may_fail_the_activity_for_good_and_a_retry_asks_again() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."), approval_timeout=60, on_expiry="fail")

    row = expired(row)
    assert (row.status, row.error, row.is_final) == (Status.ERROR, "send was not approved in time.", True)
    activity.retry(row.agent_id)
    again(row)

    (new,) = Approval.objects.pending()
    approvals.approve(new.id)
    assert (again(row).status, SENT) == (Status.COMPLETE, ["Acme"])


def test_nobody_is_named_as_the_author_of_an_expiry() -> None:
    run([call("send", "1", to="Acme")], say("Done."), approval_timeout=60, on_expiry="approve")
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    with pytest.raises(AlreadyDecided):
        approvals.reject(Approval.objects.get().id, by="too-late", reason="No.")

    line = ActivityLog.objects.get(message__contains="not decided in time")
    assert (line.actor, Approval.objects.get().decided_by) == (None, None)


def test_a_decision_after_the_expiry_comes_too_late() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Too late."), approval_timeout=60)
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    with pytest.raises(AlreadyDecided, match="already expired"):
        approvals.approve(Approval.objects.get().id)

    assert (again(row).result, SENT) == ("Too late.", [])
    assert expire_due() == 0


def test_an_approval_that_is_not_due_stays() -> None:
    run([call("send", "1", to="Acme")], say("Done."), approval_timeout=60)

    assert expire_due() == 0
    assert Approval.objects.pending().exists()


def test_a_missed_decision_is_repaired() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."))
    Approval.objects.update(status="approved")
    Activity.objects.update(updated_at=timezone.now() - timedelta(minutes=1))

    resume_missed()

    assert (again(row).status, SENT) == (Status.COMPLETE, ["Acme"])


def test_a_repair_leaves_activities_that_wait() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."))
    Activity.objects.update(updated_at=timezone.now() - timedelta(minutes=1))

    resume_missed()

    assert again(row).is_suspended


def test_questions_are_answered_with_one_of_the_choices() -> None:
    def handler_tools(runner: OpenAIRunner) -> list[Any]:
        return [runner.tools.ask_person]

    scripted = ScriptedModel([[call("ask_person", "1", question="Which size?", choices=["S", "M"])], say("M it is.")])

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        agent = Agent("Clerk", model=scripted, tools=handler_tools(runner))
        return str((await runner.run(agent, "Order.")).final_output)

    task("clerk")(handler).enqueue(Empty())
    drain()
    row, question = Activity.objects.get(), Approval.objects.get()

    assert (row.waiting_for, question.kind, question.title, question.choices) == (
        "answer", "question", "Which size?", ["S", "M"]
    )  # fmt: skip
    with pytest.raises(InvalidOption, match="answer it"):
        approvals.approve(question.id)
    with pytest.raises(InvalidOption, match="'XL' is not one of the choices 'S', 'M'"):
        approvals.answer(question.id, "XL")
    with pytest.raises(InvalidOption, match="empty"):
        approvals.answer(question.id, "")
    approvals.answer(question.id, "M", by="buyer")
    assert approvals.answer(question.id, "M").decided_by == "buyer"
    with pytest.raises(AlreadyDecided):
        approvals.answer(question.id, "S")

    assert again(row).result == "M it is."
    assert tool_outputs(scripted) == ["M"]


def test_a_declined_question_tells_the_model() -> None:
    scripted = ScriptedModel([[call("ask_person", "1", question="Which size?")], say("I choose.")])

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        agent = Agent("Clerk", model=scripted, tools=[runner.tools.ask_person])
        return str((await runner.run(agent, "Order.")).final_output)

    task("clerk")(handler).enqueue(Empty())
    drain()
    approvals.reject(Approval.objects.get().id, reason="Decide yourself.")
    drain()

    assert Activity.objects.get().result == "I choose."
    assert tool_outputs(scripted) == ["Nobody has answered. Decide yourself."]


def test_signals_report_requests_and_decisions_after_the_commit() -> None:
    seen: list[tuple[str, str, str]] = []

    def on_request(approval: Approval, **_: Any) -> None:
        seen.append(("requested", approval.tool, Approval.objects.get(pk=approval.pk).status))

    def on_decision(approval: Approval, **_: Any) -> None:
        seen.append(("decided", approval.tool, Approval.objects.get(pk=approval.pk).status))

    approval_requested.connect(on_request)
    approval_decided.connect(on_decision)
    try:
        run([call("send", "1", to="Acme")], say("Done."))
        approvals.approve(Approval.objects.get().id)
    finally:
        approval_requested.disconnect(on_request)
        approval_decided.disconnect(on_decision)

    assert seen == [("requested", "send", "pending"), ("decided", "send", "approved")]


def test_a_callable_rule_asks_only_where_it_says_so() -> None:
    async def is_large(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return bool(arguments["amount"] > 25)

    @function_tool(needs_approval=is_large)
    def refund(amount: int) -> str:
        """Refund."""
        SENT.append(str(amount))
        return "refunded"

    row, _ = run([call("refund", "1", amount=10)], [call("refund", "2", amount=50)], say("Done."), tools=[refund])

    assert (SENT, Approval.objects.get().arguments) == (["10"], {"amount": 50})
    approvals.approve(Approval.objects.get().id)
    assert (again(row).status, SENT) == (Status.COMPLETE, ["10", "50"])


def test_an_approval_inside_an_agent_that_is_a_tool() -> None:
    inner = ScriptedModel([[call("send", "1", to="Acme")], say("inner done")])
    helper = Agent("Helper", model=inner, tools=[send])
    row, outer = run([call("help", "1", input="x")], say("Done."), tools=[helper.as_tool("help", "Helps.")])

    approval = Approval.objects.get()
    assert (approval.agent, approval.path) == ("Helper", "/0:1")
    approvals.approve(approval.id)

    assert again(row).status == Status.COMPLETE
    assert (SENT, len(inner.calls), len(outer.calls)) == (["Acme"], 2, 2)


def test_another_activity_runs_while_one_waits() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."))
    done: list[UUID] = []

    async def other(agent_id: UUID, context: Empty) -> None:
        done.append(agent_id)

    task("other")(other).enqueue(Empty())
    drain()

    assert len(done) == 1
    assert Activity.objects.get(pk=row.pk).is_suspended


def test_each_approved_call_is_recorded_once() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."))
    approvals.approve(Approval.objects.get().id)
    again(row)

    calls = AgentCall.objects.filter(kind=CallKind.TOOL).values_list("name", "state", "output")
    assert list(calls) == [("send", "done", "sent to Acme")]


def died_during_the_call(**options: Any) -> Approval:
    """Return the request for the outcome of an approved call whose process died."""
    row, _ = run([call("send", "1", to="Acme")], say("Done."), **options)
    approvals.approve(Approval.objects.get().id)
    AgentCall.objects.create(
        activity=row, path="", kind=CallKind.TOOL, call_id="1", name="send", state="started", attempt=1, fence=row.fence
    )
    drain()
    return Approval.objects.pending().get()


def test_an_approved_tool_runs_with_the_arguments_that_a_person_has_changed() -> None:
    row, scripted = run([call("send", "1", to="Acme")], say("Done."))
    request = Approval.objects.get()

    decided = approvals.approve(request.id, by="shift-lead", arguments={"to": "Beta"})
    row = again(row)

    assert (row.status, SENT) == (Status.COMPLETE, ["Beta"]), row.error
    assert tool_outputs(scripted) == ["sent to Beta"]
    assert (decided.arguments, decided.changed_arguments) == ({"to": "Acme"}, {"to": "Beta"})
    assert decided.effective_arguments == {"to": "Beta"}
    assert AgentCall.objects.get(kind=CallKind.TOOL).arguments == {"to": "Beta"}
    line = ActivityLog.objects.get(message__contains="changed arguments")
    assert (line.message, line.actor) == ("send was approved with changed arguments.", "shift-lead")
    assert approvals.approve(request.id, arguments={"to": "Beta"}).status == "approved"
    for other in (None, {"to": "Acme"}, {"to": "Gamma"}):
        with pytest.raises(AlreadyDecided):
            approvals.approve(request.id, arguments=other)


def test_arguments_that_are_those_of_the_request_are_no_change() -> None:
    run([call("send", "1", to="Acme")], say("Done."))

    decided = approvals.approve(Approval.objects.get().id, arguments={"to": "Acme"})

    assert decided.changed_arguments is None
    assert approvals.approve(decided.id) == decided
    assert ActivityLog.objects.filter(message="send was approved.").exists()


async def _approve_async(id: UUID, **options: Any) -> Approval:
    return await approvals.aapprove(id, **options)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("to", "must be a dictionary"),
        ({1: "Acme"}, "must be a dictionary"),
        ({"to": object()}, "cannot be stored"),
        ({"to": "x" * 200_000}, "at most 100,000"),
        ({"to": "Acme", "cc": "Beta"}, "are to; give exactly these. Missing or unknown: cc"),
        ({}, "Missing or unknown: to"),
        ({"to": 5}, "'to' of send is a text, but 5 is not"),
    ],
)
def test_arguments_that_the_call_cannot_have_are_refused(arguments: Any, problem: str) -> None:
    run([call("send", "1", to="Acme")], say("Done."))
    request = Approval.objects.get()

    with pytest.raises(InvalidOption, match=problem):
        async_to_sync(_approve_async)(request.id, arguments=arguments)
    with pytest.raises(InvalidOption, match="single call"):
        approvals.approve(request.id, arguments={"to": "Beta"}, scope="run")

    request.refresh_from_db()
    assert (request.status, SENT) == ("pending", [])


def test_a_call_with_changed_arguments_that_died_is_repeated_with_them() -> None:
    row, _ = run([call("send", "1", to="Acme")], say("Done."))
    approvals.approve(Approval.objects.get().id, arguments={"to": "Beta"})
    AgentCall.objects.create(
        activity=row, path="", kind=CallKind.TOOL, call_id="1", name="send", state="started", attempt=1, fence=row.fence
    )
    drain()
    request = Approval.objects.pending().get()
    assert (request.kind, request.arguments) == ("in_doubt", {"to": "Beta"})
    with pytest.raises(InvalidOption, match="omit them"):
        approvals.approve(request.id, arguments={"to": "Gamma"})

    approvals.approve(request.id)
    drain()

    assert (Activity.objects.get().status, SENT) == (Status.COMPLETE, ["Beta"])


def test_an_agent_used_as_a_tool_receives_changed_arguments() -> None:
    inner = Agent("Inner", model=ScriptedModel([say("Looked.")]))
    tool = inner.as_tool("look", "Look.", needs_approval=True)
    row, _ = run([call("look", "1", input="Acme")], say("Done."), tools=[tool])

    approvals.approve(Approval.objects.get().id, arguments={"input": "Beta"})
    row = again(row)

    assert row.status == Status.COMPLETE, row.error
    assert inner.model.calls[-1].input[-1]["content"] == "Beta"  # type: ignore[union-attr]  # a scripted model


@pytest.mark.parametrize(
    ("decide", "sent", "output"),
    [
        (lambda id: approvals.answer(id, "It was sent."), [], "It was sent."),
        (lambda id: approvals.approve(id), ["Acme"], "sent to Acme"),
        (lambda id: approvals.reject(id), [], "outcome is unknown"),
        (lambda id: approvals.reject(id, reason="No stamp."), [], "Find out before you repeat it. No stamp."),
    ],
)
def test_an_approved_call_that_died_is_not_repeated_without_another_decision(
    decide: Callable[[UUID], Approval], sent: list[str], output: str
) -> None:
    request = died_during_the_call()
    assert (request.kind, request.number, SENT) == ("in_doubt", 1, [])
    with pytest.raises(InvalidOption, match="single call"):
        approvals.approve(request.id, scope="run")

    decide(request.id)
    drain()

    assert (Activity.objects.get().status, SENT) == (Status.COMPLETE, sent)
    assert output in str(AgentCall.objects.get(kind=CallKind.TOOL).output)


def test_expiry_never_repeats_a_call_in_doubt() -> None:
    request = died_during_the_call(approval_timeout=60, on_expiry="approve")
    Approval.objects.filter(id=request.id).update(expires_at=timezone.now() - timedelta(seconds=1))

    assert expire_due() == 1
    drain()

    assert (Activity.objects.get().status, SENT) == (Status.COMPLETE, [])
    assert "outcome is unknown" in str(AgentCall.objects.get(kind=CallKind.TOOL).output)


class PlainRunner(BaseAgentRunner):
    """A runner without a framework."""

    async def run(self) -> list[str]:
        return [await self.tools.ask_person("Which size?", ["S", "M"]), await self.ask_person("Which colour?")]


def test_a_runner_of_any_framework_asks_in_the_order_of_its_handler() -> None:
    async def handler(agent_id: UUID, context: Empty) -> list[str]:
        return await PlainRunner(agent_id).run()

    task("clerk")(handler).enqueue(Empty())
    drain()
    approvals.answer(Approval.objects.pending().get(title="Which size?").id, "S")
    drain()
    approvals.answer(Approval.objects.pending().get(title="Which colour?").id, "blue")
    drain()

    assert Activity.objects.get().result == ["S", "blue"]
    assert Approval.objects.count() == 2


async def test_a_question_outside_of_a_worker_is_refused() -> None:
    with pytest.raises(InvalidOption, match="needs a worker"):
        await PlainRunner(uuid4()).ask_person("Which size?")


@pytest.mark.parametrize("second", [{"to": "Rival"}, {"to": "Acme"}])
@pytest.mark.parametrize("is_one_answer", [True, False])
def test_an_approval_allows_no_other_call_for_which_the_model_uses_the_same_id(
    second: dict[str, str], is_one_answer: bool
) -> None:
    """Decisions are found by the ids of calls, which a model may choose; the SDK runs an id once."""
    calls = [call("send", "1", to="Acme"), call("send", "1", **second)]
    row, _ = run(*([calls] if is_one_answer else [[each] for each in calls]), say("Done."))

    for approval in Approval.objects.pending():
        approvals.approve(approval.id)
    again(row)

    assert SENT in ([], ["Acme"])


@pytest.mark.parametrize("scope", ["once", "run"])
def test_a_decision_counts_no_longer_when_the_calls_have_been_deleted(scope: str) -> None:
    """A retry makes the calls again, and another call may have the id of the approved call."""
    first, second = call("send", "1", to="Acme"), call("send", "1", to="Rival")
    row, _ = run([first], *[ValueError("no answer")] * 4, [second], say("Done."))
    approvals.approve(Approval.objects.get().id, scope=scope)
    row = again(row)
    assert (row.status, SENT) == (Status.ERROR, ["Acme"]), row.error

    Activity.objects.update(finished_at=timezone.now() - timedelta(hours=2))
    assert sum(prune_calls(timedelta(hours=1))) > 0
    activity.retry(row.agent_id)
    row = again(row)

    assert (row.waiting_for, SENT) == ("approval", ["Acme"])
    assert Approval.objects.pending().get().arguments == {"to": "Rival"}
    assert Approval.objects.count() == 2
