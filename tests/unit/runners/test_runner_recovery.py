"""`OpenAIRunner`: what happens when the turns run out."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from agents import (
    Agent,
    HandoffInputData,
    MaxTurnsExceeded,
    SQLiteSession,
    StreamEvent,
    Usage,
    function_tool,
    handoff,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from django_agentexec import InvalidOption, OpenAIRunner
from tests.support.activity_recorder import ActivityRecorder

WRAP_UP = "Stop now, and answer."


@pytest.fixture
def runner(recorder: ActivityRecorder) -> OpenAIRunner:
    return OpenAIRunner(uuid4(), max_turns_recovery=True, wrap_up_prompt=WRAP_UP, recovery_turns=2)


@function_tool
def fetch(page: str) -> str:
    """Fetch a page."""
    return f"Contents of {page}"


def fetching(page: int) -> ModelStep:
    call = function_call("fetch", {"page": str(page)}, call_id=f"c{page}")
    usage = Usage(requests=1, input_tokens=10, output_tokens=2, total_tokens=12)
    return ModelStep(output=[call], usage=usage, response_id=f"resp-{page}")


def answering() -> ModelStep:
    usage = Usage(requests=1, input_tokens=10, output_tokens=2, total_tokens=12)
    return ModelStep(output=[assistant_message("Two pages read.")], usage=usage, response_id="resp-last")


def spoken(items: list[dict[str, Any]]) -> list[str]:
    """Return a conversation in short: who said what, calls and their answers by their id."""
    return [
        f"{item['type']} {item['call_id']}" if "call_id" in item else f"{item['role']}: {item['content']}"
        for item in items
    ]


WHOLE = [
    "user: Read all.",
    "function_call c1",
    "function_call_output c1",
    "function_call c2",
    "function_call_output c2",
    f"user: {WRAP_UP}",
]


async def test_without_recovery_the_error_is_raised(recorder: ActivityRecorder) -> None:
    agent = Agent("Clerk", model=ScriptedModel([fetching(1), fetching(2)]), tools=[fetch])

    with pytest.raises(MaxTurnsExceeded) as raised:
        await OpenAIRunner(uuid4()).run(agent, "Read all.", max_turns=2)

    assert raised.value.run_data is not None
    assert len(raised.value.run_data.raw_responses) == 2
    assert recorder.usage["requests"] == 2


async def test_the_agent_wraps_up_over_the_whole_conversation(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    model = ScriptedModel([fetching(1), fetching(2), answering()])

    result = await runner.run(Agent("Clerk", model=model, tools=[fetch]), "Read all.", max_turns=2)

    assert result.final_output == "Two pages read."
    assert spoken(model.calls[-1].input) == WHOLE
    assert "All turns are used; wrapping up." in recorder.messages


async def test_tokens_of_both_legs_are_summed(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    model = ScriptedModel([fetching(1), fetching(2), answering()])

    result = await runner.run(Agent("Clerk", model=model, tools=[fetch]), "Read all.", max_turns=2)

    assert recorder.usage["requests"] == 3
    assert recorder.usage["total_tokens"] == 36
    assert result.context_wrapper.usage.total_tokens == 36


async def test_events_of_both_legs_are_forwarded(runner: OpenAIRunner) -> None:
    events: list[StreamEvent] = []
    model = ScriptedModel([fetching(1), fetching(2), answering()])
    agent = Agent("Clerk", model=model, tools=[fetch])

    await runner.run_streamed(agent, "Read all.", max_turns=2, forwarder=events.append)

    items = [event.name for event in events if event.type == "run_item_stream_event"]
    assert items == ["tool_called", "tool_output"] * 2 + ["message_output_created"]


async def test_the_recovery_has_turns_of_its_own_and_no_more(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    model = ScriptedModel([fetching(page) for page in range(1, 6)])

    with pytest.raises(MaxTurnsExceeded, match=r"\(2\)"):
        await runner.run(Agent("Clerk", model=model, tools=[fetch]), "Read all.", max_turns=1)

    assert len(model.calls) == 1 + 2
    assert recorder.usage["requests"] == 3


async def test_a_session_gets_each_item_once(runner: OpenAIRunner) -> None:
    model = ScriptedModel([fetching(1), fetching(2), answering()])
    session = SQLiteSession("conversation")
    agent = Agent("Clerk", model=model, tools=[fetch])

    await runner.run(agent, "Read all.", max_turns=2, session=session)

    assert spoken(model.calls[-1].input) == WHOLE
    saved = [dict(item) for item in await session.get_items()]
    assert spoken(saved[:-1]) == WHOLE
    assert saved[-1]["role"] == "assistant"
    session.close()


@pytest.mark.parametrize("options", [{"conversation_id": "conv-1"}, {"auto_previous_response_id": True}])
async def test_a_conversation_on_the_server_gets_what_it_lacks(runner: OpenAIRunner, options: dict[str, Any]) -> None:
    model = ScriptedModel([fetching(1), fetching(2), answering()])
    agent = Agent("Clerk", model=model, tools=[fetch])

    await runner.run(agent, "Read all.", max_turns=2, **options)

    last = model.calls[-1]
    assert spoken(last.input) == ["function_call_output c2", f"user: {WRAP_UP}"]
    assert last.conversation_id == options.get("conversation_id")
    assert last.previous_response_id == (None if last.conversation_id else "resp-2")


async def test_the_agent_that_ran_last_wraps_up(runner: OpenAIRunner) -> None:
    transfer = ModelStep(output=[function_call("transfer_to_expert", {}, call_id="h")])
    expert = Agent("Expert", model=ScriptedModel([fetching(1), answering()]), tools=[fetch])
    triage = Agent("Triage", model=ScriptedModel([transfer]), handoffs=[expert])

    result = await runner.run(triage, "Read all.", max_turns=2)

    assert result.last_agent is expert
    assert result.final_output == "Two pages read."


async def test_what_a_handoff_has_filtered_out_stays_out(runner: OpenAIRunner) -> None:
    first = ModelStep(output=[function_call("transfer_to_expert", {}, call_id="h")])
    model = ScriptedModel([fetching(1), answering()])
    expert = Agent("Expert", model=model, tools=[fetch])

    def only_question(data: HandoffInputData) -> HandoffInputData:
        return data.clone(pre_handoff_items=(), new_items=data.new_items, input_items=())

    triage = Agent("Triage", model=ScriptedModel([first]), handoffs=[handoff(expert, input_filter=only_question)])

    await runner.run(triage, "Read all.", max_turns=2)

    calls = ["function_call c1", "function_call_output c1"]
    assert spoken(model.calls[0].input) == ["user: Read all."]
    assert spoken(model.calls[1].input) == ["user: Read all.", *calls, f"user: {WRAP_UP}"]


async def test_the_context_stays(runner: OpenAIRunner) -> None:
    seen: list[Any] = []

    def instructions(wrapper: Any, agent: Any) -> str:
        seen.append(wrapper.context)
        return ""

    model = ScriptedModel([fetching(1), answering()])
    agent = Agent("Clerk", model=model, tools=[fetch], instructions=instructions)

    await runner.run(agent, "Read all.", max_turns=1, context={"user": "ada"})

    assert seen == [{"user": "ada"}] * 2


async def test_the_users_own_handler_goes_first(runner: OpenAIRunner) -> None:
    model = ScriptedModel([fetching(1)])
    agent = Agent("Clerk", model=model, tools=[fetch])

    result = await runner.run(agent, "Read all.", max_turns=1, error_handlers={"max_turns": lambda error: "Handled."})

    assert result.final_output == "Handled."


async def test_turns_of_an_agent_used_as_a_tool_are_not_recovered(runner: OpenAIRunner) -> None:
    inner = Agent("Helper", model=ScriptedModel([fetching(1)]), tools=[fetch])
    tool = inner.as_tool("helper", "Helps.", max_turns=1, failure_error_function=None)
    call = function_call("helper", json.dumps({"input": "Help"}), call_id="1")
    model = ScriptedModel([[call], answering()])

    with pytest.raises(MaxTurnsExceeded):
        await runner.run(Agent("Clerk", model=model, tools=[tool]), "Read all.", max_turns=5)

    assert model.remaining_steps == 1


def test_a_recovery_needs_a_turn() -> None:
    with pytest.raises(InvalidOption, match="recovery_turns=0"):
        OpenAIRunner(uuid4(), recovery_turns=0)
