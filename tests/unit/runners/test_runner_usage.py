"""`OpenAIRunner`: tokens are counted however a run ends."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, Usage, function_tool
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from django_agentexec import OpenAIRunner, StaleAttempt
from tests.support.activity_recorder import ActivityRecorder

ONE_REQUEST = {
    "requests": 1,
    "input_tokens": 100,
    "cached_tokens": 40,
    "output_tokens": 20,
    "reasoning_tokens": 5,
    "total_tokens": 120,
}


def usage() -> Usage:
    return Usage(
        requests=1,
        input_tokens=100,
        input_tokens_details=InputTokensDetails(cached_tokens=40, cache_write_tokens=0),
        output_tokens=20,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=5),
        total_tokens=120,
    )


def answering() -> ModelStep:
    return ModelStep(output=[assistant_message("Done.")], usage=usage())


def calling(tool: str, call_id: str = "1") -> ModelStep:
    return ModelStep(output=[function_call(tool, {}, call_id=call_id)], usage=usage())


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # of any kind, and soon true
            await asyncio.sleep(0)


@function_tool(failure_error_function=None)
async def fail() -> str:
    """Fail."""
    raise RuntimeError("The tool is broken.")


async def test_a_run_is_counted(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    await runner.run(Agent("Clerk", model=ScriptedModel([answering()])), "Hi")

    assert recorder.usage == ONE_REQUEST
    assert recorder.ids == {runner.agent_id}


async def test_each_run_of_a_runner_is_counted_once(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    agent = Agent("Clerk", model=ScriptedModel([answering(), answering()]))
    context: Any = RunContextWrapper(context=None)  # the SDK takes a wrapper that was used before, too

    await runner.run(agent, "Hi", context=context)
    await runner.run(agent, "Hi again", context=context)

    assert recorder.usage == {name: 2 * count for name, count in ONE_REQUEST.items()}


async def test_a_run_that_fails_is_counted(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    model = ScriptedModel([calling("fail")])

    with pytest.raises(Exception, match=r"The tool is broken\."):
        await runner.run(Agent("Clerk", model=model, tools=[fail]), "Hi")

    assert recorder.usage == ONE_REQUEST


async def test_a_failing_model_is_an_error_and_what_came_before_is_counted(
    runner: OpenAIRunner, recorder: ActivityRecorder
) -> None:
    @function_tool
    async def look() -> str:
        """Look."""
        return "ok"

    model = ScriptedModel([calling("look"), ModelStep.raise_error(ConnectionError("No line."))])

    with pytest.raises(ConnectionError, match=r"No line\."):
        await runner.run(Agent("Clerk", model=model, tools=[look]), "Hi")

    assert recorder.usage == ONE_REQUEST


class Wait:
    """A tool that never returns: `tool`, and whether it has begun and was stopped."""

    def __init__(self) -> None:
        self.begun, self.stopped = asyncio.Event(), asyncio.Event()
        self.tool = function_tool(self.wait)

    async def wait(self) -> str:
        """Wait for what never comes."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()
        return "never"


async def test_each_call_is_counted_when_it_has_ended(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    seen: list[int] = []

    @function_tool
    async def look() -> str:
        """Look at what is counted so far."""
        await until(lambda: recorder.usage["requests"] > len(seen))
        seen.append(recorder.usage["requests"])
        return "ok"

    model = ScriptedModel([calling("look"), calling("look", "2"), answering()])
    result = await runner.run(Agent("Clerk", model=model, tools=[look]), "Hi")

    assert seen == [1, 2]
    assert recorder.usage == {name: 3 * count for name, count in ONE_REQUEST.items()}
    assert result.context_wrapper.usage.total_tokens == 360
    assert type(result.context_wrapper.usage) is Usage


async def test_calls_of_a_nested_agent_are_counted_when_they_have_ended(
    runner: OpenAIRunner, recorder: ActivityRecorder
) -> None:
    seen: list[int] = []

    @function_tool
    async def look() -> str:
        """Look at what is counted so far."""
        await until(lambda: recorder.usage["requests"] == 2)
        seen.append(recorder.usage["requests"])
        return "ok"

    inner = Agent("Helper", model=ScriptedModel([calling("look"), answering()]), tools=[look])
    call = ModelStep(output=[function_call("helper", {"input": "Help"}, call_id="1")], usage=usage())
    outer = Agent("Clerk", model=ScriptedModel([call, answering()]), tools=[inner.as_tool("helper", "Helps.")])

    await runner.run(outer, "Hi")

    assert seen == [2]
    assert recorder.usage == {name: 4 * count for name, count in ONE_REQUEST.items()}


async def test_calls_that_end_while_a_write_is_under_way_share_the_next_one(
    runner: OpenAIRunner, recorder: ActivityRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = asyncio.Event()
    add = recorder.aadd_usage

    async def slow(agent_id: Any, counts: Any) -> None:
        await may_write.wait()
        await add(agent_id, counts)

    monkeypatch.setattr(recorder, "aadd_usage", slow)

    @function_tool
    async def look() -> str:
        """Look."""
        return "ok"

    @function_tool
    async def let_write() -> str:
        """Let the database answer."""
        may_write.set()
        await until(lambda: recorder.usage["requests"] == 3)
        return "ok"

    script = [calling("look"), calling("look", "2"), calling("let_write", "3"), answering()]
    async with asyncio.timeout(10):
        await runner.run(Agent("Clerk", model=ScriptedModel(script), tools=[look, let_write]), "Hi")

    assert recorder.usage == {name: 4 * count for name, count in ONE_REQUEST.items()}
    assert recorder.usage_writes == 3  # the first call; the next two; the last


async def test_a_lost_activity_makes_no_further_request(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    refused = asyncio.Event()

    async def refuse(agent_id: Any, counts: Any) -> None:
        refused.set()
        raise StaleAttempt("The lease was lost.")

    recorder.aadd_usage = refuse  # type: ignore[method-assign]

    @function_tool
    async def look() -> str:
        """Look."""
        await refused.wait()
        await asyncio.sleep(0)
        return "ok"

    model = ScriptedModel([calling("look"), answering()])
    with pytest.raises(StaleAttempt):
        await runner.run(Agent("Clerk", model=model, tools=[look]), "Hi")

    assert model.remaining_steps == 1


async def test_copies_of_the_counts_are_plain_and_apart(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    copies: list[Usage] = []

    @function_tool
    async def look(wrapper: RunContextWrapper[Any]) -> str:
        """Copy the counts, as the SDK does for a state to resume from."""
        copies.append(copy.deepcopy(wrapper.usage))
        copies[0].add(usage())
        return "ok"

    model = ScriptedModel([calling("look"), answering()])
    await runner.run(Agent("Clerk", model=model, tools=[look]), "Hi")

    assert [type(each) for each in copies] == [Usage]
    assert recorder.usage == {name: 2 * count for name, count in ONE_REQUEST.items()}


async def test_a_canceled_run_is_counted_and_stopped(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    wait = Wait()
    agent = Agent("Clerk", model=ScriptedModel([calling("wait"), answering()]), tools=[wait.tool])
    task = asyncio.create_task(runner.run(agent, "Hi"))
    await wait.begun.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert wait.stopped.is_set()
    assert recorder.usage == ONE_REQUEST


async def test_a_run_canceled_in_its_forwarder_is_stopped(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    wait = Wait()
    agent = Agent("Clerk", model=ScriptedModel([calling("wait"), answering()]), tools=[wait.tool])

    async def forward(event: object) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(runner.run_streamed(agent, "Hi", forwarder=forward))
    await wait.begun.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):  # unless stopped, the tool never ends
            await task
    assert wait.stopped.is_set()
    assert recorder.usage == ONE_REQUEST


async def test_a_run_without_tokens_writes_none(runner: OpenAIRunner, recorder: ActivityRecorder) -> None:
    def fail_before_any_request(call: ModelCall) -> ModelStep:
        raise ConnectionError("No line.")

    model = ScriptedModel([ModelStep.respond(fail_before_any_request)])

    with pytest.raises(ConnectionError):
        await runner.run(Agent("Clerk", model=model), "Hi")

    assert recorder.usage_writes == 0


async def test_a_count_that_cannot_be_saved_does_not_hide_the_failure(
    runner: OpenAIRunner, recorder: ActivityRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.usage_refusal = StaleAttempt("The lease was lost.")

    with pytest.raises(Exception, match=r"The tool is broken\."):
        await runner.run(Agent("Clerk", model=ScriptedModel([calling("fail")]), tools=[fail]), "Hi")

    (record,) = [each for each in caplog.records if each.name.startswith("django_agentexec")]
    assert "usage" in record.getMessage()
    assert vars(record)["agent_id"] == str(runner.agent_id)


async def test_a_count_that_cannot_be_saved_fails_a_run_that_was_well(
    runner: OpenAIRunner, recorder: ActivityRecorder
) -> None:
    recorder.usage_refusal = StaleAttempt("The lease was lost.")

    with pytest.raises(StaleAttempt):
        await runner.run(Agent("Clerk", model=ScriptedModel([answering()])), "Hi")
