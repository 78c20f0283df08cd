"""Agents and models that answer from a script, for tests without a server or an API key.

Public as `django_agentexec.testing.scripted_agent`, `scripted_model` and `tool_call`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from agents import Agent, Usage
from agents.items import TResponseOutputItem
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from pydantic import BaseModel


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool in a script; made by `tool_call`."""

    name: str
    arguments: dict[str, Any]


Output: TypeAlias = "str | BaseModel | ToolCall"
ScriptStep: TypeAlias = "Output | Sequence[Output] | Exception | ModelStep"


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """Return a step in which the model calls the tool `name`: `tool_call("search", query="Acme")`."""
    return ToolCall(name, arguments)


def scripted_model(*steps: ScriptStep) -> ScriptedModel:
    """Return a model that answers each request with the next step.

    A step is a text, a Pydantic model (for agents with an `output_type`), a `tool_call(...)`, a list of these for one
    answer, an exception that the request raises, or a `ModelStep` of the SDK. A request after the last step raises
    `agents.testing.UnexpectedModelCall`. `model.calls` are the recorded requests, `model.assert_complete()` fails if
    steps are left. Raises `TypeError` for other steps.
    """
    numbers = count(1)
    return ScriptedModel([_converted(step, numbers) for step in steps], default_usage=Usage(requests=1))


def scripted_agent(*steps: ScriptStep, name: str = "Scripted agent", **options: Any) -> Agent[Any]:
    """Return an agent whose model answers from a script; see `scripted_model` for the steps.

    `options` are those of `agents.Agent`, such as `tools` and `output_type`. Example:

        agent = scripted_agent(tool_call("search", query="Acme"), "Acme is well.", tools=[search])
    """
    return Agent(name, model=scripted_model(*steps), **options)


def _converted(step: ScriptStep, numbers: count[int]) -> ModelStep | Exception | list[TResponseOutputItem]:
    if isinstance(step, (Exception, ModelStep)):
        return step
    outputs = step if isinstance(step, (list, tuple)) else [step]
    return [_output_item(output, numbers) for output in outputs]


def _output_item(output: object, numbers: count[int]) -> TResponseOutputItem:
    match output:
        case str():
            return assistant_message(output)
        case BaseModel():
            return assistant_message(output.model_dump_json())
        case ToolCall():
            return function_call(output.name, output.arguments, call_id=f"call-{next(numbers)}")
    raise TypeError(
        f"A step of a script is a text, a Pydantic model, tool_call(...), a list of these, or an exception, "
        f"not {output!r:.100}."
    )
