"""`BaseAgentRunner`, the framework-independent base class of runners.

`OpenAIRunner` derives from it; projects derive from it for other frameworks. A runner belongs to one activity: create
it inside the handler, with the `agent_id` passed to the handler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, cast
from uuid import UUID

from typing_extensions import TypeVar

from django_agentexec import activity
from django_agentexec.activity.streams import rewind_text, text_position
from django_agentexec.calls.questions import ask
from django_agentexec.calls.recording import RecordedRun, recording
from django_agentexec.conf import conf
from django_agentexec.current import current_attempt
from django_agentexec.exceptions import InvalidOption

ReportStatus = Callable[[str, int], Awaitable[str]]
# The framework's type of tools; by default a plain async function.
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
    """Prompts for the agent: `report_status` for its instructions, `wrap_up` for the recovery after its last turn."""

    report_status: str = REPORT_STATUS_PROMPT
    wrap_up: str = WRAP_UP_PROMPT


@dataclass(frozen=True)
class Tools(Generic[ReportTool]):
    """The tools of one activity, in the type of the runner's framework."""

    report_status: ReportTool
    ask_person: ReportTool


class BaseAgentRunner(ABC, Generic[ReportTool]):
    """Base class of runners, which run an agent for the activity `agent_id`.

    A subclass implements `run`, and overrides `report_status_tool` and `ask_person_tool` if its framework has a type
    for tools:

        class PlainRunner(BaseAgentRunner):
            async def run(self, question: str) -> str:
                await self.log("Asking the model.", 10)
                answer = await ask(question, tools=[self.tools.report_status])
                await self.add_usage({"requests": 1, "input_tokens": answer.tokens})
                return answer.text

    With `recorded_run`, later attempts read the model and tool calls of earlier attempts from the database.

    `report_status_prompt` and `wrap_up_prompt` replace the default `prompts`. `durable` is whether calls are recorded,
    by default the setting `DURABLE`.
    """

    def __init__(
        self,
        agent_id: UUID,
        *,
        report_status_prompt: str | None = None,
        wrap_up_prompt: str | None = None,
        durable: bool | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.durable = conf.DURABLE if durable is None else durable
        self.prompts = Prompts(
            report_status=REPORT_STATUS_PROMPT if report_status_prompt is None else report_status_prompt,
            wrap_up=WRAP_UP_PROMPT if wrap_up_prompt is None else wrap_up_prompt,
        )
        self.tools: Tools[ReportTool] = Tools(
            report_status=self.report_status_tool(), ask_person=self.ask_person_tool()
        )

    @abstractmethod
    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the agent to its end and return its result. The subclass defines arguments and result."""

    @asynccontextmanager
    async def recorded_run(
        self, agent: str, input: Any = None, *, key: str | None = None, on_change: str = "continue"
    ) -> AsyncIterator[RecordedRun]:
        """Record one run of an agent: `async with self.recorded_run("Clerk", question) as run: ...`.

        Inside, make each model call by `run.model_call` and each tool call by `run.tool_call`, and set `run.output`. In
        a later attempt, recorded calls are answered from the database. `agent` is the agent's name; `agent` and `input`
        identify runs that overlap, unless they have a `key`. If the input has changed since, paid calls are kept
        (`on_change="continue"`) or made again (`"restart"`).

        Outside of a worker, in unit tests and with `durable=False` the calls are made and not recorded.
        """
        if on_change not in ("continue", "restart"):
            raise InvalidOption(f"recorded_run(on_change={on_change!r}) must be 'continue' or 'restart'.")
        attempt = current_attempt(self.agent_id)
        if attempt is None or not self.durable or not attempt.root.records_calls:
            yield RecordedRun(agent, None, self.add_usage)
            return
        async with recording(attempt, agent, input, key, on_change, self.add_usage) as run:
            yield run

    async def log(self, message: str, percentage: int | None = None) -> None:
        """Write a line to the activity's log. Without a `percentage` (0 to 100) the progress does not change.

        Raises ValueError for another percentage, `StaleAttempt` if this attempt no longer owns the activity, and
        `InvalidTransition` if the activity has ended. Stop working after the last two.
        """
        await activity.aupdate(self.agent_id, message, percentage)

    def stream(self, text: str, label: str = "") -> None:
        """Publish `text`, a part of the model's answer, to clients that follow the activity. Does not block.

        `label` is the name of the writing agent, for handlers in which several agents write at once.
        """
        if label:
            activity.stream(self.agent_id, text, label=label)
        else:
            activity.stream(self.agent_id, text)

    def retract_stream(self) -> None:
        """Retract all text that this attempt has published, for example after a guardrail has rejected it."""
        activity.retract_stream(self.agent_id)

    def stream_position(self, label: str = "") -> int:
        """Return how many characters this attempt has published with this label."""
        attempt = current_attempt(self.agent_id)
        return text_position(self.agent_id, attempt.fence if attempt else 0, label)

    def rewind_stream(self, position: int, label: str = "") -> None:
        """Withdraw the text with this label after its first `position` characters: its model call begins again."""
        attempt = current_attempt(self.agent_id)
        if attempt is None or not attempt.canceled:
            number, fence = (attempt.number, attempt.fence) if attempt else (0, 0)
            rewind_text(self.agent_id, position, number, fence, label)

    async def flush_stream(self) -> None:
        """Wait at most 2 seconds until all streamed text is readable, so that it precedes the end of the activity."""
        await activity.aflush_stream()

    async def add_usage(self, usage: Mapping[str, int], cost: Decimal | None = None) -> None:
        """Add token counts to the usage of the activity, and their cost in US dollars, if it is known.

        Keys: `requests`, `input_tokens`, `cached_tokens` (part of the input), `output_tokens`, `reasoning_tokens`
        (part of the output), `total_tokens`. Missing keys count as zero.
        """
        # Without a cost in the form that fakes of tests, and overrides, of earlier releases accept.
        await activity.aadd_usage(self.agent_id, usage, *([] if cost is None else [cost]))

    async def report_status(self, message: str, percentage: int) -> str:
        """Write the agent's progress report to the log, and return the tool output for the model.

        For errors that the model can correct (an invalid percentage or message) the output begins with `Error:`.
        Other exceptions, such as `StaleAttempt`, are raised.
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
        """Return `report_status` in the framework's type of tools; by default a plain async function."""
        return cast(ReportTool, self.report_status)

    async def ask_person(self, question: str, choices: list[str] | None = None) -> str:
        """Return the answer of a person to `question`, one of the `choices` if there are any.

        Until there is an answer, the activity is suspended: `Suspended` is raised, which no code may catch, and the
        handler runs again with the answer. Raises `InvalidOption` outside of a worker.
        """
        attempt = current_attempt(self.agent_id)
        if attempt is None:
            raise InvalidOption("ask_person suspends an activity, and therefore needs a worker that executes it.")
        return await ask(attempt, question, choices)

    def ask_person_tool(self) -> ReportTool:
        """Return `ask_person` in the framework's type of tools; by default a plain async function."""
        return cast(ReportTool, self.ask_person)
