"""`BaseAgentRunner`: what a runner for another framework gets."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from django_agentexec import BaseAgentRunner, InvalidTransition, StaleAttempt
from tests.support.activity_recorder import ActivityRecorder


class EchoRunner(BaseAgentRunner):
    """A runner whose agent reports once, and says what it was asked."""

    async def run(self, question: str) -> str:
        await self.log("Asking.", 10)
        await self.tools.report_status("Thinking.", 50)
        await self.add_usage({"requests": 1, "input_tokens": 7})
        return question


async def test_a_subclass_logs_reports_and_counts(recorder: ActivityRecorder) -> None:
    agent_id = uuid4()

    assert await EchoRunner(agent_id).run("What?") == "What?"

    assert recorder.updates == [("Asking.", 10), ("Thinking.", 50)]
    assert recorder.usage == {"requests": 1, "input_tokens": 7}
    assert recorder.ids == {agent_id}


async def test_a_line_without_percentage_leaves_progress_as_it_is(recorder: ActivityRecorder) -> None:
    await EchoRunner(uuid4()).log("Still here.")

    assert recorder.updates == [("Still here.", None)]


@pytest.mark.parametrize("percentage", [-1, 101, "60", 12.5, True, None])
async def test_the_model_is_told_about_a_wrong_percentage(recorder: ActivityRecorder, percentage: Any) -> None:
    answer = await EchoRunner(uuid4()).tools.report_status("Working.", percentage)

    assert answer.startswith(f"Error: percentage is {percentage!r}, but must be an integer from 0 to 100.")
    assert recorder.updates == []


@pytest.mark.parametrize("percentage", [0, 100])
async def test_both_ends_of_the_range_are_percentages(recorder: ActivityRecorder, percentage: int) -> None:
    assert await EchoRunner(uuid4()).tools.report_status("Working.", percentage) == "The status was saved."
    assert recorder.updates == [("Working.", percentage)]


async def test_the_model_is_told_about_an_unusable_message(recorder: ActivityRecorder) -> None:
    recorder.refusal = ValueError("A message cannot hold a NUL character.")

    answer = await EchoRunner(uuid4()).tools.report_status("\x00", 50)

    assert answer.startswith("Error: the status was not saved: A message cannot hold a NUL character.")


@pytest.mark.parametrize("error", [StaleAttempt("lost"), InvalidTransition("ended"), OSError("gone")])
async def test_what_the_model_cannot_help_is_raised(recorder: ActivityRecorder, error: Exception) -> None:
    recorder.refusal = error

    with pytest.raises(type(error)):
        await EchoRunner(uuid4()).tools.report_status("Working.", 50)


def test_prompts_can_be_replaced() -> None:
    runner = EchoRunner(uuid4(), report_status_prompt="Report.", wrap_up_prompt="Stop.")

    assert (runner.prompts.report_status, runner.prompts.wrap_up) == ("Report.", "Stop.")


def test_the_default_prompts_say_what_the_tool_and_the_turn_limit_need() -> None:
    prompts = EchoRunner(uuid4()).prompts

    assert "report_status" in prompts.report_status
    assert "final answer" in prompts.wrap_up


def test_a_runner_must_say_how_it_runs() -> None:
    with pytest.raises(TypeError, match="run"):
        BaseAgentRunner(uuid4())  # type: ignore[abstract]  # the point of the test
