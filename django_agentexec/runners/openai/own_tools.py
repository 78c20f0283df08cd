"""The package's own tools, in the form of the SDK: `report_status` and `ask_person`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agents import FunctionTool, ModelBehaviorError, RunContextWrapper, function_tool

from django_agentexec.calls.questions import ASK_PERSON

REPORT_STATUS = "report_status"


def report_status_tool(report: Callable[[str, int], Awaitable[str]]) -> FunctionTool:
    """Return a tool that reports message and percentage by `report`, and returns its text."""

    async def report_status(message: str, percentage: int) -> str:
        """Report to the user what you are doing, and how much of the whole work is done.

        Args:
            message: One short sentence about the step you are about to take.
            percentage: How much of the whole work is done, an integer from 0 to 100.
        """
        return await report(message, percentage)

    return function_tool(report_status, name_override=REPORT_STATUS, failure_error_function=_explain_arguments)


def ask_person_tool(ask: Callable[[str, list[str] | None], Awaitable[str]]) -> FunctionTool:
    """Return a tool that asks a person by `ask`, and returns the answer."""

    async def ask_person(question: str, choices: list[str] | None = None) -> str:
        """Ask the person who is responsible for this work, and wait for the answer.

        Args:
            question: The question, in one or two sentences that can be understood without other context.
            choices: The possible answers, or null for an answer in free text.
        """
        return await ask(question, choices)

    return function_tool(ask_person, name_override=ASK_PERSON, needs_approval=True)


def _explain_arguments(context: RunContextWrapper[Any], error: Exception) -> str:
    """Return an error text for invalid arguments of the model; raise other errors again."""
    if isinstance(error, ModelBehaviorError):
        return (
            "Error: report_status takes message, a text, and percentage, an integer from 0 to 100. "
            "The status was not saved; call report_status again with correct arguments."
        )
    raise error
