"""`OpenAIRunner(stream=True)`: what the model writes is shown as it comes."""

from __future__ import annotations

from uuid import uuid4

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from django_agentexec.runners.openai import OpenAIRunner
from tests.activity_recorder import ActivityRecorder, record_activity


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> ActivityRecorder:
    return record_activity(monkeypatch)


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
    assert recorder.streamed[-1] == ""  # flushed: whoever hears of the end has read everything
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
