"""What every runner has, whatever framework drives its agent.

`OpenAIRunner` builds on it; a project subclasses it for another framework. A runner belongs to one
activity: make one inside the handler, with the `agent_id` that the handler was given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, cast
from uuid import UUID

from typing_extensions import TypeVar

from django_agentexec import activity

ReportStatus = Callable[[str, int], Awaitable[str]]
# What the framework wants to be handed as the tool; a plain async function unless a runner says otherwise.
ReportTool = TypeVar("ReportTool", default=ReportStatus)

REPORT_STATUS_PROMPT = (
    "The user follows your progress. Whenever you begin a new step of the work, call the tool "
    "report_status with one short sentence about what you are doing and the percentage of the whole "
    "work that is done, as an integer from 0 to 100."
)
WRAP_UP_PROMPT = (
    "You have used all the steps you had for this work. Begin nothing new: use what you have found so "
    "far, and give your final answer now. Say what is missing from it."
)


@dataclass(frozen=True)
class Prompts:
    """Sentences for the agent: `report_status` for its instructions, `wrap_up` for when its turns run out."""

    report_status: str = REPORT_STATUS_PROMPT
    wrap_up: str = WRAP_UP_PROMPT


@dataclass(frozen=True)
class Tools(Generic[ReportTool]):
    """The tools of one activity, ready to be handed to an agent of the runner's framework."""

    report_status: ReportTool


class BaseAgentRunner(ABC, Generic[ReportTool]):
    """Runs an agent on behalf of the activity `agent_id`.

    A subclass writes `run`, and `report_status_tool` where its framework has its own type for tools:

        class PlainRunner(BaseAgentRunner):
            async def run(self, question: str) -> str:
                await self.log("Asking the model.", 10)
                answer = await ask(question, tools=[self.tools.report_status])
                await self.add_usage({"requests": 1, "input_tokens": answer.tokens})
                return answer.text

    `report_status_prompt` and `wrap_up_prompt` replace the sentences of `prompts`.
    """

    def __init__(
        self,
        agent_id: UUID,
        *,
        report_status_prompt: str | None = None,
        wrap_up_prompt: str | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.prompts = Prompts(
            report_status=REPORT_STATUS_PROMPT if report_status_prompt is None else report_status_prompt,
            wrap_up=WRAP_UP_PROMPT if wrap_up_prompt is None else wrap_up_prompt,
        )
        self.tools: Tools[ReportTool] = Tools(report_status=self.report_status_tool())

    @abstractmethod
    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the agent to its end and return its result. Arguments and result are the subclass's own."""

    async def log(self, message: str, percentage: int | None = None) -> None:
        """Write a line into the activity's log; without a `percentage` (0 to 100) progress stays as it is.

        Raises a ValueError for another percentage, `StaleAttempt` if this attempt no longer owns the
        activity, and `InvalidTransition` if the activity has ended: stop working then.
        """
        await activity.aupdate(self.agent_id, message, percentage)

    def stream(self, text: str, label: str = "") -> None:
        """Show `text`, a piece of the model's answer, to those who follow the activity live. Never waits.

        `label` names the agent that wrote it, for handlers in which several write at once.
        """
        if label:
            activity.stream(self.agent_id, text, label=label)
        else:
            activity.stream(self.agent_id, text)

    def retract_stream(self) -> None:
        """Take back all text that this attempt has shown, for example because a guardrail rejects it."""
        activity.retract_stream(self.agent_id)

    async def flush_stream(self) -> None:
        """Wait, 2 seconds at most, until all streamed text can be read: before the activity's end is told."""
        await activity.aflush_stream()

    async def add_usage(self, usage: Mapping[str, int]) -> None:
        """Add token counts to the activity's.

        Keys: `requests`, `input_tokens`, `cached_tokens` (part of the input), `output_tokens`,
        `reasoning_tokens` (part of the output), `total_tokens`; absent ones count as zero.
        """
        await activity.aadd_usage(self.agent_id, usage)

    async def report_status(self, message: str, percentage: int) -> str:
        """Write the agent's own progress report into the log, and return what the model is told about it.

        What the model can put right (a percentage that is none, an unusable message) comes back as text
        that begins with `Error:`. Everything else, such as `StaleAttempt`, is raised.
        """
        if isinstance(percentage, bool) or not isinstance(percentage, int) or not 0 <= percentage <= 100:
            return (
                f"Error: percentage is {percentage!r}, but must be an integer from 0 to 100. "
                "The status was not saved; call report_status again with a correct percentage."
            )
        try:
            await self.log(message, percentage)
        except ValueError as error:
            return f"Error: the status was not saved: {error} Call report_status again with correct arguments."
        return "The status was saved."

    def report_status_tool(self) -> ReportTool:
        """Return `report_status` as the framework wants its tools: here as it is, a plain async function."""
        return cast(ReportTool, self.report_status)
