"""`OpenAIRunner`: what becomes of a run whose guardrail trips."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrail,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrail,
    ToolOutputGuardrailTripwireTriggered,
    function_tool,
)
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

from django_agentexec import OpenAIRunner
from django_agentexec.validation import one_line
from tests.support.activity_recorder import ActivityRecorder, record_activity


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> ActivityRecorder:
    return record_activity(monkeypatch)


class Verdict(BaseModel):
    reason: str


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def no_legal_advice(*arguments: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=Verdict(reason="legal"), tripwire_triggered=True)


def no_files(*arguments: Any) -> ToolGuardrailFunctionOutput:
    return ToolGuardrailFunctionOutput.raise_exception("a file")


@function_tool(
    tool_input_guardrails=[ToolInputGuardrail(guardrail_function=no_files, name="paths")],
)
def read(path: str) -> str:
    """Read a file."""
    return "text"


@function_tool(tool_output_guardrails=[ToolOutputGuardrail(guardrail_function=no_files)])
def write(path: str) -> str:
    """Write a file."""
    return "written"


def calling(tool: str) -> ScriptedModel:
    return ScriptedModel([[function_call(tool, {"path": "/etc"}, call_id="1")]])


def answering() -> ScriptedModel:
    return ScriptedModel([[assistant_message("You should sue.")]])


LEGAL = 'Guardrail no_legal_advice triggered its tripwire: {"reason":"legal"}'


@pytest.mark.parametrize(
    ("agent", "kind", "text"),
    [
        (
            Agent("A", model=answering(), input_guardrails=[InputGuardrail(no_legal_advice)]),
            InputGuardrailTripwireTriggered,
            LEGAL,
        ),
        (
            Agent("A", model=answering(), output_guardrails=[OutputGuardrail(no_legal_advice)]),
            OutputGuardrailTripwireTriggered,
            LEGAL,
        ),
        (
            Agent("A", model=calling("read"), tools=[read]),
            ToolInputGuardrailTripwireTriggered,
            "Guardrail paths triggered its tripwire: a file",
        ),
        (
            Agent("A", model=calling("write"), tools=[write]),
            ToolOutputGuardrailTripwireTriggered,
            "Guardrail no_files triggered its tripwire: a file",
        ),
    ],
    ids=["input", "output", "tool_input", "tool_output"],
)
async def test_its_name_and_output_are_in_the_error(agent: Agent[Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as raised:
        await OpenAIRunner(uuid4()).run(agent, "May I sue?")

    assert one_line(raised.value) == f"{kind.__name__}: {text}."


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (None, "triggered its tripwire."),
        ("x" * 5_000, f"triggered its tripwire: {'x' * 1_000}."),
        (Unprintable(), "triggered its tripwire: a Unprintable."),
    ],
    ids=["nothing", "much", "unprintable"],
)
async def test_whatever_its_output_is(output: Any, text: str) -> None:
    def check(*arguments: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=output, tripwire_triggered=True)

    agent = Agent("A", model=answering(), output_guardrails=[OutputGuardrail(check)])

    with pytest.raises(OutputGuardrailTripwireTriggered) as raised:
        await OpenAIRunner(uuid4()).run(agent, "Hi")

    assert str(raised.value) == f"Guardrail check {text}"
