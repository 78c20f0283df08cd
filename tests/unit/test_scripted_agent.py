"""Scripted agents: models that answer from a script, without a server or an API key."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from agents import Agent, Runner, function_tool
from agents.testing import UnexpectedModelCall
from pydantic import BaseModel

from django_agentexec.testing import scripted_agent, scripted_model, tool_call


class Brief(BaseModel):
    title: str


@function_tool
def search(query: str) -> str:
    return f"found {query}"


async def test_an_agent_calls_tools_and_answers() -> None:
    agent = scripted_agent(tool_call("search", query="Acme"), "Acme is well.", tools=[search])

    result = await Runner.run(agent, "Research Acme.")

    assert result.final_output == "Acme is well."
    assert [item.output for item in result.new_items if item.type == "tool_call_output_item"] == ["found Acme"]
    assert agent.name == "Scripted agent"


async def test_a_pydantic_model_is_a_structured_answer() -> None:
    agent = scripted_agent(Brief(title="Acme"), name="Writer", output_type=Brief)

    assert (await Runner.run(agent, "")).final_output == Brief(title="Acme")


async def test_several_outputs_form_one_answer() -> None:
    both = ["Two searches.", tool_call("search", query="a"), tool_call("search", query="b")]
    agent = scripted_agent(both, "Done.", tools=[search])

    result = await Runner.run(agent, "")

    assert [item.output for item in result.new_items if item.type == "tool_call_output_item"] == ["found a", "found b"]


async def test_an_exception_is_raised_by_the_request() -> None:
    with pytest.raises(ConnectionError, match="refused"):
        await Runner.run(scripted_agent(ConnectionError("refused")), "")


async def test_a_request_after_the_last_step_fails() -> None:
    with pytest.raises(UnexpectedModelCall):
        await Runner.run(scripted_agent(), "")


async def test_a_model_records_its_requests() -> None:
    model = scripted_model("Hello.")

    result = await Runner.run(Agent("Greeter", model=model), "Hi!")

    assert model.calls[0].input == [{"content": "Hi!", "role": "user"}]
    assert result.context_wrapper.usage.requests == 1
    model.assert_complete()


@pytest.mark.parametrize("step", [5, None, ["a", 5]])
def test_other_steps_are_refused(step: Any) -> None:
    with pytest.raises(TypeError, match="A step of a script is a text"):
        scripted_model(step)


def test_the_module_needs_the_sdk_only_for_scripts() -> None:
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'; django.setup()\n"
        "sys.modules['agents'] = sys.modules['openai'] = None\n"
        "from django_agentexec.testing import drain, assert_enqueued\n"
        "from django_agentexec.testing import scripted_agent"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "pip install 'django-agentexec[openai]'" in done.stderr
    assert 'File "<string>", line 4' in done.stderr
