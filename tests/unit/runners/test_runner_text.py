"""`OpenAIRunner(stream=True)`: what the model writes is shown as it comes."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    function_tool,
)
from agents.testing import ScriptedModel, assistant_message, function_call

from django_agentexec import OpenAIRunner
from django_agentexec.current import running
from django_agentexec.testing import make_attempt
from tests.support.activity_recorder import ActivityRecorder


@function_tool
def fetch(page: str) -> str:
    """Fetch a page."""
    return f"Contents of {page}"


def answering() -> Agent[None]:
    """Return an agent that says something, calls a tool, and answers."""
    look = [assistant_message("I look it up."), function_call("fetch", {"page": "1"}, call_id="1")]
    return Agent("Clerk", model=ScriptedModel([look, [assistant_message("It ends in March.")]]), tools=[fetch])


async def test_the_models_text_is_shown_with_an_empty_line_between_messages(recorder: ActivityRecorder) -> None:
    runner = OpenAIRunner(uuid4(), stream=True)

    await runner.run(answering(), "When does it end?")

    assert "".join(recorder.streamed) == "I look it up.\n\nIt ends in March."
    assert recorder.streamed[-1] == ""  # flushed: a client that receives the end has read everything
    assert recorder.ids == {runner.agent_id}


async def test_nothing_is_shown_unless_asked_for(recorder: ActivityRecorder) -> None:
    await OpenAIRunner(uuid4()).run(answering(), "When does it end?")

    assert recorder.streamed == []


async def test_the_forwarder_still_gets_every_event(recorder: ActivityRecorder) -> None:
    with_stream: list[str] = []
    without: list[str] = []

    for runner, events in ((OpenAIRunner(uuid4(), stream=True), with_stream), (OpenAIRunner(uuid4()), without)):
        await runner.run_streamed(answering(), "Hi", forwarder=lambda event, events=events: events.append(event.type))

    assert with_stream == without


async def test_text_has_the_label_that_its_runner_was_given(recorder: ActivityRecorder) -> None:
    await OpenAIRunner(uuid4(), stream=True, label="Second opinion").run(answering(), "When does it end?")

    assert set(recorder.labels) == {"Second opinion"}


async def test_the_runners_of_one_handler_are_labeled_by_their_agents(recorder: ActivityRecorder) -> None:
    attempt = make_attempt()
    with running(attempt):
        for _ in range(2):
            await OpenAIRunner(attempt.agent_id, stream=True).run(answering(), "When does it end?")
        await OpenAIRunner(attempt.agent_id, stream=True).run(
            Agent("Expert", model=ScriptedModel([[assistant_message("In March.")]])), "When does it end?"
        )

    assert list(dict.fromkeys(recorder.labels)) == ["Clerk", "Clerk (2)", "Expert"]


def reject(*arguments: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


async def test_text_is_taken_back_when_an_output_guardrail_trips(recorder: ActivityRecorder) -> None:
    agent = answering()
    agent.output_guardrails = [OutputGuardrail(reject)]

    with pytest.raises(OutputGuardrailTripwireTriggered):
        await OpenAIRunner(uuid4(), stream=True).run(agent, "When does it end?")

    assert recorder.retractions == 1
    assert recorder.streamed == [""]  # flushed: it is gone before the end is known


async def test_nothing_is_taken_back_where_nothing_was_shown(recorder: ActivityRecorder) -> None:
    agent = answering()
    agent.output_guardrails = [OutputGuardrail(reject)]

    with pytest.raises(OutputGuardrailTripwireTriggered):
        await OpenAIRunner(uuid4()).run(agent, "When does it end?")

    assert recorder.retractions == 0
