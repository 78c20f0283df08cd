"""Durable runs at their edges: nested decisions, odd outputs, failed answers, refused writes, memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Model, ModelRetrySettings, ModelSettings, Runner, function_tool
from agents.testing import function_call
from openai.types.responses import Response, ResponseCreatedEvent, ResponseIncompleteEvent
from openai.types.responses.response import IncompleteDetails
from pydantic import BaseModel

from django_agentexec import Attempt, InvalidTransition, OpenAIRunner, activity
from django_agentexec.calls.journal import Journal
from django_agentexec.models import Activity, AgentCall, Approval, ApprovalStatus, CallKind, Status
from django_agentexec.queues import get_queue
from tests.support.contexts import Empty
from tests.support.decisions import decide
from tests.support.durable_agents import DONE, drained, fail_once, run
from tests.support.scripted_models import call, model, say

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


class Found(BaseModel):
    name: str
    score: float


@dataclass
class Measured:
    value: int


@function_tool(needs_approval=True)
def send(to: str) -> str:
    """Send a letter."""
    DONE["sent"] += 1
    return f"sent to {to}"


def test_a_run_inside_a_tool_suspends_without_waiting_for_the_run_around_it() -> None:
    boss_model = model([call("delegate", "1")], say("All done."))
    clerk_model = model([call("send", "2", to="Acme")], say("Sent."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)

        @function_tool
        async def delegate() -> str:
            """Let a clerk do it."""
            DONE["delegate"] += 1
            result = await runner.run(Agent("Clerk", model=clerk_model, tools=[send]), "Write to Acme.")
            return str(result.final_output)

        return str((await runner.run(Agent("Boss", model=boss_model, tools=[delegate]), "Go.")).final_output)

    row = run(handler)
    assert (row.is_suspended, Approval.objects.get().path) == (True, "/0:1")
    decide()
    row = drained()

    assert (row.status, row.result) == (Status.COMPLETE, "All done."), row.error
    assert (len(boss_model.calls), len(clerk_model.calls), DONE["sent"]) == (2, 2, 1)


@pytest.mark.parametrize("streams", [False, True])
def test_an_approval_inside_an_agent_used_as_a_tool(streams: bool) -> None:
    boss_model = model([call("delegate", "1", input="Write.")], say("All done."))
    clerk_model = model([call("send", "2", to="Acme")], say("Sent."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        clerk = Agent("Clerk", model=clerk_model, tools=[send])
        tool = clerk.as_tool("delegate", "Delegates.", on_stream=(lambda event: None) if streams else None)
        result = await OpenAIRunner(agent_id).run(Agent("Boss", model=boss_model, tools=[tool]), "Go.")
        fail_once()
        return str(result.final_output)

    row = run(handler)
    assert (row.is_suspended, Approval.objects.get().path) == (True, "/0:1")
    decide()
    row = drained()

    assert (row.status, row.result) == (Status.COMPLETE, "All done."), row.error
    assert (len(boss_model.calls), len(clerk_model.calls), DONE["sent"]) == (2, 2, 1)
    outputs = AgentCall.objects.filter(kind=CallKind.TOOL).order_by("id").values_list("name", "state", "output")
    assert list(outputs) == [("delegate", "done", "Sent."), ("send", "done", "sent to Acme")]


def test_a_rejection_is_recorded_and_the_tool_never_runs() -> None:
    scripted = model([call("send", "1", to="Acme")], say("I was not allowed."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        result = await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted, tools=[send]), "Write.")
        fail_once()
        return str(result.final_output)

    run(handler)
    decide(status=ApprovalStatus.REJECTED, reason="Too early.")
    row = drained()

    assert (row.status, DONE["sent"]) == (Status.COMPLETE, 0), row.error
    recorded = AgentCall.objects.get(kind=CallKind.TOOL)
    assert (recorded.state, recorded.output) == ("rejected", "Tool execution was not approved. Too early.")


def test_outputs_of_models_and_dataclasses_keep_their_type() -> None:
    @function_tool
    def find() -> Found:
        """Find."""
        DONE["find"] += 1
        return Found(name="Acme", score=0.5)

    @function_tool
    def measure() -> Measured:
        """Measure."""
        return Measured(3)

    @function_tool(output_type=Found)
    def typed() -> Found:
        """Find, with a declared type."""
        return Found(name="Beta", score=1.0)

    scripted = model([call("typed", "0")], [call("find", "1"), call("measure", "2")])

    async def handler(agent_id: UUID, context: Empty) -> str:
        tools = [find, measure, typed]
        clerk = Agent("Clerk", model=scripted, tools=tools, tool_use_behavior=_stop_at_found, output_type=Found)
        result = await OpenAIRunner(agent_id).run(clerk, "Find.")
        fail_once()
        assert isinstance(result.final_output, Found)
        return str(result.final_output.name)

    row = run(handler)

    assert (row.status, row.result, DONE["find"]) == (Status.COMPLETE, "Acme", 1), row.error


def _stop_at_found(context: Any, results: list[Any]) -> Any:
    from agents import ToolsToFinalOutputResult

    outputs = {result.tool.name: result.output for result in results}
    if "find" not in outputs:
        return ToolsToFinalOutputResult(is_final_output=False)
    assert isinstance(outputs["measure"], Measured)
    return ToolsToFinalOutputResult(is_final_output=True, final_output=outputs["find"])


def test_what_no_database_holds_is_replaced() -> None:
    @function_tool(strict_mode=False)
    def read(name: str, number: float) -> dict[str, Any]:
        """Read."""
        DONE["read"] += 1
        return {"text": "a\x00b\ud800", "number": float("nan")}

    scripted = model([function_call("read", '{"name": "x\\u0000", "number": NaN}', call_id="1")], say("a\x00b"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        result = await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted, tools=[read]), "Read \x00.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, DONE["read"], len(scripted.calls)) == (Status.COMPLETE, 1, 2), row.error
    assert AgentCall.objects.get(kind=CallKind.TOOL).arguments == {"name": "x\ufffd", "number": "nan"}


class Incomplete(Model):
    """A model whose provider ends its answer early."""

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        response = Response.model_construct(
            id="r", output=[], incomplete_details=IncompleteDetails(reason="max_output_tokens"), usage=None
        )
        yield ResponseCreatedEvent.model_construct(type="response.created", response=response, sequence_number=0)
        yield ResponseIncompleteEvent.model_construct(type="response.incomplete", response=response, sequence_number=1)


def test_an_answer_that_the_provider_ended_early_is_recorded_as_failed() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(Agent("Clerk", model=Incomplete()), "Go.")).final_output)

    row = run(handler)

    assert row.status == Status.ERROR
    states = AgentCall.objects.filter(kind=CallKind.MODEL).values_list("state", "error")
    assert list(states) == [("failed", "RuntimeError: response.incomplete: max_output_tokens")]


def test_a_retry_of_the_sdk_is_one_call() -> None:
    scripted = model(ConnectionError("lost"), say("Fine."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        retry = ModelRetrySettings(max_retries=2, policy=lambda _: True, backoff={"initial_delay": 0.0})
        clerk = Agent("Clerk", model=scripted, model_settings=ModelSettings(retry=retry))
        return str((await OpenAIRunner(agent_id).run(clerk, "Go.")).final_output)

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 1), row.error
    calls = AgentCall.objects.filter(kind=CallKind.MODEL)
    assert [(each.ordinal, each.state, each.error) for each in calls] == [(0, "done", "")]


def test_the_recovery_after_the_last_turn_replays_with_its_text_and_ends() -> None:
    scripted = model([call("nothing", "1")], say("What I have."))

    @function_tool
    def nothing() -> str:
        """Do nothing."""
        DONE["nothing"] += 1
        return "nothing"

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, max_turns_recovery=True, stream=True)
        result = await runner.run(Agent("Clerk", model=scripted, tools=[nothing]), "Go.", max_turns=1)
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result, len(scripted.calls)) == (Status.COMPLETE, "What I have.", 2), row.error
    runs = AgentCall.objects.filter(kind=CallKind.AGENT).order_by("id").values_list("path", "state")
    assert list(runs) == [("", "done"), ("+recovery", "done")]
    chunks = get_queue().live.read({row.agent_id: "0-0"}, 100)
    assert "".join(chunk.text for chunk in chunks if chunk.fence == row.fence) == "What I have."


def test_a_canceled_activity_ends_its_run_with_the_reason() -> None:
    seen: list[BaseException] = []

    async def handler(agent_id: UUID, context: Empty) -> str:
        @function_tool
        async def cancel() -> str:
            """Cancel the activity itself."""
            await activity.acancel(agent_id)
            return "canceled"

        scripted = model([call("cancel", "1")], [call("cancel", "2")], say("Never."))
        try:
            result = await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted, tools=[cancel]), "Go.")
        except BaseException as error:
            seen.append(error)
            raise
        return str(result.final_output)

    row = run(handler)

    assert row.status == Status.CANCELED
    assert isinstance(seen[0], (InvalidTransition, asyncio.CancelledError)), repr(seen[0])


def test_journals_end_with_their_attempts() -> None:
    scripted = model([call("send", "1", to="Acme")], say("Sent."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(Agent("C", model=scripted, tools=[send]), "Write.")).final_output)

    run(handler)
    decide()
    row = drained()

    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, Journal)]
    assert row.agent_id not in [journal.attempt.agent_id for journal in alive]


def test_a_restart_for_another_input_makes_the_run_again_and_keeps_the_others() -> None:
    scripted = model(say("one"), say("two"), say("other"))

    async def handler(agent_id: UUID, context: Empty) -> list[str]:
        runner = OpenAIRunner(agent_id, on_change="restart")
        clerk = Agent("Clerk", model=scripted)
        first = await runner.run(clerk, f"First at {DONE['fail']}.", key="first")
        second = await runner.run(clerk, "Second.", key="second")
        fail_once()
        return [first.final_output, second.final_output]

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, ["other", "two"]), row.error
    assert len(scripted.calls) == 3
    aside = AgentCall.objects.exclude(set_aside=0).values_list("path", flat=True)
    assert set(aside) == {"~key=first"}


def test_only_requests_that_have_changed_are_marked() -> None:
    scripted = model([call("note", "1")], [call("note", "2")], say("Fine."))

    @function_tool
    def note() -> str:
        """Note."""
        return "noted"

    async def handler(agent_id: UUID, context: Empty) -> str:
        clerk = Agent("Clerk", model=scripted, tools=[note], instructions=lambda *_: _instructions())
        result = await OpenAIRunner(agent_id).run(clerk, "Go.")
        fail_once()
        return str(result.final_output)

    def _instructions() -> str:
        DONE["turn"] += 1
        return "Now different." if DONE["turn"] == 5 else "As ever."  # the second turn of the second attempt

    row = run(handler)

    assert row.status == Status.COMPLETE, row.error
    marked = AgentCall.objects.filter(has_changed=True).values_list("kind", "ordinal")
    assert list(marked) == [("model", 1)]


def test_runs_with_keys_overlap_and_a_key_is_used_once() -> None:
    models = {name: model(say(f"{name} answers")) for name in ("a", "b")}

    async def handler(agent_id: UUID, context: Empty) -> list[str]:
        runner = OpenAIRunner(agent_id)
        now = DONE["fail"]
        results = await asyncio.gather(
            *(runner.run(Agent("Same", model=models[name]), f"Question at {now}", key=name) for name in models)
        )
        fail_once()
        return [str(result.final_output) for result in results]

    row = run(handler)

    assert row.result == ["a answers", "b answers"], row.error
    assert [len(each.calls) for each in models.values()] == [1, 1]


def test_a_tool_over_its_time_limit_is_recorded_and_not_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @function_tool(timeout=3_600)
    async def slow() -> str:
        """Wait for an hour, by the clock of the loop."""
        DONE["slow"] += 1
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + 3_600)
        await asyncio.Event().wait()
        return "never"

    scripted = model([call("slow", "1")], say("It was too slow."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        result = await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted, tools=[slow]), "Go.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, DONE["slow"], len(scripted.calls)) == (Status.COMPLETE, 1, 2), row.error


def test_a_sync_tool_may_run_an_agent_in_its_thread() -> None:
    boss_model, clerk_model = model([call("delegate", "1")], say("Done.")), model(say("Clerked."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        @function_tool
        def delegate() -> str:
            """Run another agent."""
            with asyncio.Runner() as runner:
                return str(runner.run(Runner.run(Agent("Clerk", model=clerk_model), "Do it.")).final_output)

        result = await OpenAIRunner(agent_id).run(Agent("Boss", model=boss_model, tools=[delegate]), "Go.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "Done."), row.error
    assert (len(boss_model.calls), len(clerk_model.calls)) == (2, 1)


def test_a_failed_call_does_not_forgive_crashes() -> None:
    scripted = model(ConnectionError("gone"), say("Fine."))
    discounted: list[int] = []

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> str:
        if attempt.number == 1:
            await Activity.objects.filter(pk=agent_id).aupdate(crashes=2)
        else:
            discounted.append((await Activity.objects.aget(pk=agent_id)).discounted_crashes)
        return str((await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted), "Go.")).final_output)

    row = run(handler)

    assert (row.status, discounted) == (Status.COMPLETE, [0]), row.error
    assert row.discounted_crashes == row.crashes


@pytest.mark.parametrize("key", ["", 5])
def test_a_key_that_is_no_text_is_refused(key: Any) -> None:
    scripted = model(say("one"))

    async def handler(agent_id: UUID, context: Empty) -> None:
        await OpenAIRunner(agent_id).run(Agent("Clerk", model=scripted), "Go.", key=key)

    assert f"InvalidOption: The key of a run, key={key!r}, must be a text such as 'summary'" in run(handler).error
    assert not scripted.calls
