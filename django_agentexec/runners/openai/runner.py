"""Runs an agent of the OpenAI Agents SDK on behalf of an activity; made by task handlers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Unpack, cast
from uuid import UUID

from agents import (
    Agent,
    FunctionTool,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelBehaviorError,
    OutputGuardrailTripwireTriggered,
    RunContextWrapper,
    Runner,
    RunResultStreaming,
    RunState,
    StreamEvent,
    TContext,
    TResponseInputItem,
    function_tool,
)
from agents.run_config import RunOptions

from django_agentexec.activity.current import current_attempt
from django_agentexec.conf import conf
from django_agentexec.exceptions import InvalidOption, InvalidTransition
from django_agentexec.runners.base import BaseAgentRunner

from .defaults import with_defaults
from .guardrails import Tripwire, name_guardrail
from .hooks import JoinedHooks, StepHooks
from .interruptions import expect_decision
from .text import TextStream
from .tracing import configure_tracing
from .usage import UsageRecorder

logger = logging.getLogger(__name__)

Forwarder = Callable[[StreamEvent], Awaitable[None] | None]
Input = str | list[TResponseInputItem]

# How long a canceled run may take to clear up; its tokens are then counted as they stand.
SETTLE_SECONDS = 2.0
REPORT_STATUS = "report_status"


class OpenAIRunner(BaseAgentRunner[FunctionTool]):
    """Runs agents of the OpenAI Agents SDK (0.24 or later) for the activity `agent_id`.

    A run's steps go into the activity's log (as far as the setting `RUNNER_LOG` says), its token counts
    onto the activity, after each model call. With `max_turns_recovery`, a run that has used up its turns
    is told `wrap_up_prompt` and goes on for at most `recovery_turns` more, at least 1. `tools.report_status`
    lets the agent report its own progress; `prompts.report_status` tells it to. With `stream`, the text that
    the model writes is shown to those who follow the activity live, as it comes, with a `label`: by default the
    agent's name. It is taken back if an input or output guardrail trips after that.

    Raises `InvalidOption` for `recovery_turns` below 1.
    """

    def __init__(
        self,
        agent_id: UUID,
        *,
        max_turns_recovery: bool = False,
        wrap_up_prompt: str | None = None,
        recovery_turns: int = 5,
        report_status_prompt: str | None = None,
        stream: bool = False,
        label: str | None = None,
    ) -> None:
        if recovery_turns < 1:
            raise InvalidOption(f"OpenAIRunner(recovery_turns={recovery_turns!r}) must be at least 1.")
        self.max_turns_recovery = max_turns_recovery
        self.recovery_turns = recovery_turns
        self._text = TextStream(agent_id, self.stream, label) if stream else None
        self._ended: InvalidTransition | None = None
        self._refused: InvalidTransition | None = None
        super().__init__(agent_id, report_status_prompt=report_status_prompt, wrap_up_prompt=wrap_up_prompt)

    async def run(
        self,
        agent: Agent[TContext],
        input: Input | RunState[TContext],
        **options: Unpack[RunOptions[TContext]],
    ) -> RunResultStreaming:
        """Run `agent` on `input` to its end; like `Runner.run`, with the same `options`, by keyword.

        The result has what a `RunResult` has (`final_output`, `new_items`, `to_input_list()`,
        `interruptions`, `last_agent`, `to_state()`, ...) but is the SDK's `RunResultStreaming`, complete:
        a run is streamed inside, since the SDK gives no data about a plain run that fails.

        Raises what the SDK raises (`MaxTurnsExceeded`, a guardrail's tripwire, ...), and `StaleAttempt` or
        `InvalidTransition` as soon as the activity is found to be lost or ended.
        """
        return await self.run_streamed(agent, input, **options)

    async def run_streamed(
        self,
        agent: Agent[TContext],
        input: Input | RunState[TContext],
        *,
        forwarder: Forwarder | None = None,
        **options: Unpack[RunOptions[TContext]],
    ) -> RunResultStreaming:
        """Run `agent` to its end and hand each of the SDK's stream events to `forwarder` on the way.

        `forwarder` is a function or coroutine function of one event. It is waited for, in the event
        loop: a plain function must not block. What it raises cancels the run and is raised here. Otherwise as
        `run`; after a recovery the result is that of the last leg, whose `input` holds the legs before it.
        """
        configure_tracing()
        options["run_config"] = with_defaults(options.get("run_config"), agent, self.agent_id)
        steps = StepHooks(self.log, conf.RUNNER_LOG, REPORT_STATUS, self._stop_if_ended)
        hooks = options.get("hooks")
        options["hooks"] = JoinedHooks(steps) if hooks is None else JoinedHooks(steps, hooks)
        result = Runner.run_streamed(agent, input, **options)
        usage = UsageRecorder(result.context_wrapper, self._add_usage)
        try:
            result = await self._completed(result, forwarder, options)
        except BaseException:
            await self._save_usage_of_failed(usage)
            raise
        if self._text is not None:
            await self.flush_stream()
        await usage.finish()
        attempt = current_attempt(self.agent_id)
        if attempt is not None:
            expect_decision(result, attempt)
        return result

    async def log(self, message: str, percentage: int | None = None) -> None:
        """As in the base class; remembers the activity's end, which the SDK would hide from the caller."""
        try:
            await super().log(message, percentage)
        except InvalidTransition as error:
            self._ended = error
            raise

    def report_status_tool(self) -> FunctionTool:
        """Return `report_status` as a tool of the SDK."""

        async def report_status(message: str, percentage: int) -> str:
            """Tell the user what you are doing, and how much of the whole work is done.

            Args:
                message: One short sentence about the step you are about to take.
                percentage: How much of the whole work is done, an integer from 0 to 100.
            """
            return await self.report_status(message, percentage)

        return function_tool(report_status, name_override=REPORT_STATUS, failure_error_function=_explain_arguments)

    async def _completed(
        self,
        result: RunResultStreaming,
        forwarder: Forwarder | None,
        options: RunOptions[TContext],
    ) -> RunResultStreaming:
        """Return `result`, or that of the recovery, once it is complete."""
        try:
            try:
                await self._forward(result, forwarder)
            except MaxTurnsExceeded:
                if not self.max_turns_recovery or not _is_out_of_turns(result):
                    raise
                result = await self._recover(result, options)
                await self._forward(result, forwarder)
        except Exception as error:
            if self._ended is not None:
                # The SDK wraps what a tool or hook raises into an error of its own.
                raise self._ended from None
            if isinstance(error, Tripwire):
                name_guardrail(error)
            if isinstance(error, (InputGuardrailTripwireTriggered, OutputGuardrailTripwireTriggered)):
                await self._take_back_text()
            raise
        return result

    async def _take_back_text(self) -> None:
        """Take back what was shown before a guardrail had judged it."""
        if self._text is not None and self._text.has_shown:
            self._text.has_shown = False
            self.retract_stream()
            await self.flush_stream()

    async def _forward(self, result: RunResultStreaming, forwarder: Forwarder | None) -> None:
        """Wait for the end of `result`, and raise what it raises."""
        stream = cast(AsyncGenerator[StreamEvent, None], result.stream_events())
        try:
            async for event in stream:
                if self._text is not None:
                    self._text.hear(event)
                if forwarder is not None:
                    outcome = forwarder(event)
                    if inspect.isawaitable(outcome):
                        await outcome
        except BaseException:
            # Before the stream is closed, which would wait for the run to go on to its last turn.
            await _stop(result)
            await stream.aclose()
            raise
        self._stop_if_ended()  # once more, since the last turn may have ended without asking the model

    def _stop_if_ended(self) -> None:
        # An agent that is used as a tool tells its model of errors of its tools, and goes on. So this is
        # asked before each request to the model, which would only cost money now.
        self._ended = self._ended or self._refused
        if self._ended is not None:
            raise self._ended

    async def _recover(self, result: RunResultStreaming, options: RunOptions[TContext]) -> RunResultStreaming:
        """Start the leg in which the agent that ran last wraps up."""
        if conf.RUNNER_LOG != "none":
            await self.log("All turns are used; wrapping up.")
        options["max_turns"] = self.recovery_turns
        # The same wrapper carries approvals, and sums up the usage.
        options["context"] = cast(TContext, result.context_wrapper)
        if options.get("previous_response_id") or options.get("auto_previous_response_id"):
            options["previous_response_id"] = result.last_response_id
        conversation = _unsaved_conversation(result, options)
        wrap_up: TResponseInputItem = {"role": "user", "content": self.prompts.wrap_up}
        return Runner.run_streamed(result.last_agent, [*conversation, wrap_up], **options)

    async def _add_usage(self, usage: dict[str, int]) -> None:
        try:
            await self.add_usage(usage)
        except InvalidTransition as error:
            self._refused = error  # the next request to a model is not made
            raise

    async def _save_usage_of_failed(self, usage: UsageRecorder) -> None:
        """Save what was used up to a failure or cancellation, which the caller goes on to raise."""
        try:
            await usage.finish()
        except Exception:
            logger.warning(
                "The token usage of a failed run could not be saved.",
                exc_info=True,
                extra={"agent_id": str(self.agent_id)},
            )


async def _stop(result: RunResultStreaming) -> None:
    """Cancel what still runs of `result`, and give it `SETTLE_SECONDS` to clear up."""
    task = result.run_loop_task
    if task is not None and not task.done():
        result.cancel()
        await asyncio.wait([task], timeout=SETTLE_SECONDS)


def _explain_arguments(context: RunContextWrapper[Any], error: Exception) -> str:
    """Tell the model about arguments that do not fit; raise again whatever is not its fault."""
    if isinstance(error, ModelBehaviorError):
        return (
            "Error: report_status takes message, a text, and percentage, an integer from 0 to 100. "
            "The status was not saved; call report_status again with correct arguments."
        )
    raise error


def _is_out_of_turns(result: RunResultStreaming) -> bool:
    # An agent used as a tool may also run out of its turns, which is not this run's end to recover from.
    return result.max_turns is not None and result.current_turn > result.max_turns


def _unsaved_conversation(result: RunResultStreaming, options: RunOptions[Any]) -> list[TResponseInputItem]:
    """Return what the model has to be sent for it to know the whole conversation of `result`."""
    if options.get("session") is not None:
        return []  # the SDK has saved each turn into the session, and reads it from there
    if options.get("conversation_id") or options.get("previous_response_id"):
        # The server holds all but the answers to the last turn's calls, which go with the next turn.
        answers: list[TResponseInputItem] = []
        for item in reversed(result.new_items):
            if item.type not in ("tool_call_output_item", "handoff_output_item"):
                break
            answers.insert(0, item.to_input_item())
        return answers
    # "normalized" is what the next turn would have been sent, also after a handoff that filters.
    return result.to_input_list(mode="normalized")
