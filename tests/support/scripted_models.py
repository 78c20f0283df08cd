"""Models with scripted answers, and the parts of their answers."""

from __future__ import annotations

from typing import Any

from agents import ModelSettings, Usage
from agents.testing import ScriptedModel, assistant_message, function_call

PAID_SETTINGS = ModelSettings(max_tokens=1_000)
"""Settings of agents with `paid_model`: a call needs a reservation of 0.03 dollars."""


def model(*steps: Any) -> ScriptedModel:
    """Return a model that gives these answers in order."""
    return ScriptedModel(list(steps))


def paid_model(*steps: Any, name: str = "paid") -> ScriptedModel:
    """Return a model whose answers have 1,000 tokens: with `budget_rows.set_price`, 0.03 dollars each."""
    scripted = ScriptedModel(list(steps), default_usage=Usage(requests=1, output_tokens=1_000, total_tokens=1_000))
    scripted.model = name  # type: ignore[attr-defined]
    return scripted


def call(name: str, call_id: str, /, **arguments: Any) -> Any:
    """Return the output item of a model that calls a tool."""
    return function_call(name, arguments, call_id=call_id)


def say(text: str) -> list[Any]:
    """Return an answer with a text."""
    return [assistant_message(text)]


def requests(*models: ScriptedModel) -> list[int]:
    """Return how many requests each model has received."""
    return [len(each.calls) for each in models]


def tool_outputs(scripted: ScriptedModel) -> list[str]:
    """Return the outputs of tools that the model has received with its last request."""
    return [item["output"] for item in scripted.calls[-1].input if item.get("type") == "function_call_output"]
