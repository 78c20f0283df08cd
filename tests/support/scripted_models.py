"""Models with scripted answers, and the parts of their answers."""

from __future__ import annotations

from typing import Any

from agents.testing import ScriptedModel, assistant_message, function_call


def model(*steps: Any) -> ScriptedModel:
    """Return a model that gives these answers in order."""
    return ScriptedModel(list(steps))


def call(name: str, call_id: str, /, **arguments: Any) -> Any:
    """Return the output item of a model that calls a tool."""
    return function_call(name, arguments, call_id=call_id)


def say(text: str) -> list[Any]:
    """Return an answer with a text."""
    return [assistant_message(text)]


def requests(*models: ScriptedModel) -> list[int]:
    """Return how many requests each model has received."""
    return [len(each.calls) for each in models]
