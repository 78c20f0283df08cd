"""`OpenAIRunner`, which runs agents of the OpenAI Agents SDK for an activity."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, Unpack, cast
from uuid import UUID

from agents import (
    Agent,
    FunctionTool,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    OutputGuardrailTripwireTriggered,
    Runner,
    RunResultStreaming,
    RunState,
    StreamEvent,
    TContext,
    TResponseInputItem,
)
from agents.run_config import RunOptions
from asgiref.sync import async_to_sync

from django_agentexec.budgets.options import BudgetOption, as_run_budget
from django_agentexec.conf import conf
from django_agentexec.current import current_attempt
from django_agentexec.exceptions import InvalidOption, InvalidTransition
from django_agentexec.parsing import duration_seconds
from django_agentexec.runners.base import BaseAgentRunner

from . import nested
from .approvals import Policies
from .cached import ModelCache
from .defaults import with_defaults, with_model
from .durable_run import DurableRun
from .endings import Tripwire, expect_decision, is_out_of_turns, name_guardrail, unsaved_conversation
from .hooks import JoinedHooks, LoggingHooks, queued_log
from .limited_agents import restore_agents
from .own_tools import REPORT_STATUS, ask_person_tool, report_status_tool
from .pricing import priced
from .resilient import Models, ResilientModel
from .text import TextStream
from .tool_names import ToolNames
from .tracing import configure_tracing
from .usage import UsageRecorder

logger = logging.getLogger(__name__)

Forwarder = Callable[[StreamEvent], Awaitable[None] | None]
Input = str | list[TResponseInputItem]

CANCEL_TIMEOUT = 2.0  # seconds; a canceled run that takes longer is abandoned


class OpenAIRunner(BaseAgentRunner[FunctionTool]):
    """Runner for agents of the OpenAI Agents SDK (0.23.1 or later).

    Logs the run in the activity's log, with the detail of the setting `RUNNER_LOG`, and saves token counts after each
    model call. With `max_turns_recovery`, a run that has used up its turns receives `wrap_up_prompt` and continues for
    at most `recovery_turns` turns. The tool `tools.report_status` lets the agent report progress; include
    `prompts.report_status` in its instructions. With `stream`, the text of the model is published to clients that
    follow the activity, with a `label` (by default the agent's name), and retracted if an input or output guardrail
    trips afterwards.

    `budget` limits what the calls of each run may cost, in all attempts: an amount in US dollars such as
    `Decimal("0.50")`, or a `RunBudget`. Before a call that would exceed it, the activity is suspended, or fails.

    `models` are the models of all agents in its runs: after an outage of one, the next is called (`ResilientModel`).
    `cache` keeps answers of agents with temperature 0 across durable runs: True, or a `ModelCache`.

    Raises `InvalidOption` for options that cannot work, such as `recovery_turns` below 1.
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
        durable: bool | None = None,
        in_doubt: str | Mapping[str, str] = "rerun",
        on_change: str = "continue",
        approval_timeout: float | timedelta | str | None = None,
        on_expiry: str | None = None,
        approvals: str = "suspend",
        budget: BudgetOption | None = None,
        models: Models | ResilientModel | None = None,
        cache: bool | ModelCache = False,
    ) -> None:
        if recovery_turns < 1:
            raise InvalidOption(f"OpenAIRunner(recovery_turns={recovery_turns!r}) must be at least 1.")
        self.max_turns_recovery = max_turns_recovery
        self.recovery_turns = recovery_turns
        if on_change not in ("continue", "restart"):
            raise InvalidOption(f"OpenAIRunner(on_change={on_change!r}) must be 'continue' or 'restart'.")
        if approvals not in ("suspend", "return"):
            raise InvalidOption(f"OpenAIRunner(approvals={approvals!r}) must be 'suspend' or 'return'.")
        if not isinstance(in_doubt, str | Mapping):
            raise InvalidOption(
                f"OpenAIRunner(in_doubt={in_doubt!r}) must be 'rerun', 'fail', 'ask', or a dictionary from names of "
                "tools to these."
            )
        self._model = models if models is None or isinstance(models, ResilientModel) else ResilientModel(models)
        self._cache = ModelCache.from_option(cache, "OpenAIRunner")
        self.on_change = on_change
        self.policies = Policies(
            {"": in_doubt} if isinstance(in_doubt, str) else dict(in_doubt),
            None if approval_timeout is None else duration_seconds(approval_timeout),
            on_expiry,
            suspends=approvals == "suspend",
        )
        self._tool_names = ToolNames(self.policies.in_doubt_by_tool)
        self._text = TextStream(agent_id, self, label) if stream else None
        self.budget = as_run_budget(budget)
        self._ended: InvalidTransition | None = None
        self._refused: InvalidTransition | None = None
        super().__init__(
            agent_id, report_status_prompt=report_status_prompt, wrap_up_prompt=wrap_up_prompt, durable=durable
        )
        if self.budget is not None and not self.durable:
            raise InvalidOption(
                f"OpenAIRunner(budget={budget!r}) needs durable=True: only recorded calls are charged, and an activity "
                "that waits for its budget would repeat all others."
            )
        if self._cache is not None and not self.durable:
            raise InvalidOption(
                f"OpenAIRunner(cache={cache!r}) needs a durable run, which marks cached answers in the trace: leave "
                "out durable=False (or AGENTEXEC['DURABLE'] = False)."
            )

    async def run(
        self,
        agent: Agent[TContext],
        input: Input | RunState[TContext],
        *,
        key: str | None = None,
        **options: Unpack[RunOptions[TContext]],
    ) -> RunResultStreaming:
        """Run `agent` on `input` to its end, like `Runner.run` and with the same keyword `options`.

        A durable run records each model and tool call; in a later attempt of the activity, recorded calls are answered
        from the database. `key` names the run within its handler. Give keys to runs that overlap, as in
        `asyncio.gather`: without a key, such a run is found again only if its input is the same.

        Returns a completed `RunResultStreaming` of the SDK, which has the attributes of a `RunResult`
        (`final_output`, `new_items`, `to_input_list()`, `interruptions`, `last_agent`, `to_state()`, ...). The run is
        streamed internally, because the SDK provides no data about a plain run that fails.

        Raises the exceptions of the SDK (`MaxTurnsExceeded`, tripwires of guardrails, ...), `StaleAttempt` or
        `InvalidTransition` when the activity is lost or has ended, and `InvalidOption` if `in_doubt` names a tool that
        no agent of the run has.
        """
        return await self.run_streamed(agent, input, key=key, **options)

    async def run_streamed(
        self,
        agent: Agent[TContext],
        input: Input | RunState[TContext],
        *,
        forwarder: Forwarder | None = None,
        key: str | None = None,
        **options: Unpack[RunOptions[TContext]],
    ) -> RunResultStreaming:
        """Run `agent` to its end and call `forwarder` with each stream event of the SDK.

        `forwarder` is a function or coroutine function with one parameter. It is called in the event loop, and the
        run continues when it has finished: a plain function must not block. Its exceptions cancel the run and are
        raised. Otherwise the same as `run`. After a recovery, the result is that of the recovery run, whose `input`
        contains the conversation before it.
        """
        configure_tracing()
        if self._model is not None:
            options["run_config"] = with_model(options.get("run_config"), self._model)
        options["run_config"] = with_defaults(options.get("run_config"), agent, self.agent_id)
        attempt = current_attempt(self.agent_id)
        recorded = attempt if self.durable and attempt is not None and attempt.root.records_calls else None
        log = queued_log(recorded) if recorded is not None and type(self).log is OpenAIRunner.log else self.log
        own_hooks = LoggingHooks(log, conf.RUNNER_LOG, REPORT_STATUS, self._stop_if_ended)
        options["hooks"] = JoinedHooks(*filter(None, (own_hooks, options.get("hooks"))))
        if recorded is not None:
            run = DurableRun(
                recorded, self.policies, self._tool_names, self.on_change, self._text, self.budget, self._cache
            )
            await run.begin(agent, input, key, cast(dict[str, Any], options))
            return await self._run_to_end(run, forwarder, options)
        self._tool_names.begin(agent)
        run_streamed: Callable[..., RunResultStreaming] = Runner.run_streamed
        if attempt is not None and attempt.root.records_calls:
            run_streamed = priced(run_streamed, lambda cost: usage.add_cost(cost))
            nested.install()
        result = run_streamed(agent, input, **options)
        usage = UsageRecorder(result.context_wrapper, self._add_usage)
        try:
            result = await self._completed(result, forwarder, options, run_streamed)
        except BaseException:
            await self._save_usage_of_failed(usage)
            raise
        if self._text is not None:
            await self.flush_stream()
        await usage.finish()
        restore_agents(result)
        if attempt is not None:
            expect_decision(result, attempt)
        return result

    def run_sync(self, agent: Agent[TContext], input: Input | RunState[TContext], **options: Any) -> RunResultStreaming:
        """Run `agent` from a sync handler; otherwise the same as `run`."""
        return async_to_sync(self.run)(agent, input, **options)

    async def _run_to_end(
        self, run: DurableRun, forwarder: Forwarder | None, options: RunOptions[TContext]
    ) -> RunResultStreaming:
        """Run a durable run to its end. Raises `Suspended` if it waits for a decision."""
        with run.recorded():
            result = run.start()
            while True:
                try:
                    result = await self._completed(result, forwarder, options, run.recover)
                except Exception as error:
                    if run.refusal is not None and error is not run.refusal:
                        raise run.refusal from None
                    await run.end_if_halted()
                    raise
                await run.end_if_halted()
                if not result.interruptions or not self.policies.suspends:
                    break
                result = await run.without_invalid_calls(result)
            await run.written()
            if self._text is not None:
                await self.flush_stream()
            run.end(result)
        if result.interruptions:
            expect_decision(result, run.attempt)
        return result

    async def log(self, message: str, percentage: int | None = None) -> None:
        """Log as in the base class, and store an `InvalidTransition`, which the SDK would wrap."""
        try:
            await super().log(message, percentage)
        except InvalidTransition as error:
            self._ended = error
            raise

    def report_status_tool(self) -> FunctionTool:
        """Return `report_status` as a tool of the SDK."""

        return report_status_tool(self.report_status)

    def ask_person_tool(self) -> FunctionTool:
        """Return `ask_person` as a tool of the SDK."""

        return ask_person_tool(self.ask_person)

    async def _completed(
        self,
        result: RunResultStreaming,
        forwarder: Forwarder | None,
        options: RunOptions[TContext],
        run_streamed: Callable[..., RunResultStreaming],
    ) -> RunResultStreaming:
        """Wait until `result` is complete and return it, or the result of the recovery, run by `run_streamed`."""
        try:
            try:
                await self._forward(result, forwarder)
            except MaxTurnsExceeded:
                if not self.max_turns_recovery or not is_out_of_turns(result):
                    raise
                result = await self._recover(result, options, run_streamed)
                await self._forward(result, forwarder)
        except Exception as error:
            if self._text is not None:
                self._text.withdraw_call()
            if self._ended is not None:
                # The SDK wraps exceptions of tools and hooks in other exceptions.
                raise self._ended from None
            if isinstance(error, Tripwire):
                name_guardrail(error)
            if isinstance(error, (InputGuardrailTripwireTriggered, OutputGuardrailTripwireTriggered)):
                await self._retract_text()
            raise
        return result

    async def _retract_text(self) -> None:
        """Retract text that was published before a guardrail rejected it."""
        if self._text is not None and self._text.has_published:
            self._text.forget()
            self.retract_stream()
            await self.flush_stream()

    async def _forward(self, result: RunResultStreaming, forwarder: Forwarder | None) -> None:
        """Wait for the end of `result`, and raise what it raises."""
        stream = cast(AsyncGenerator[StreamEvent, None], result.stream_events())
        try:
            async for event in stream:
                if self._text is not None:
                    self._text.handle(event)
                if forwarder is not None:
                    outcome = forwarder(event)
                    if inspect.isawaitable(outcome):
                        await outcome
        except BaseException:
            # Before closing the stream, which would wait until the run has finished its last turn.
            await _stop(result)
            await stream.aclose()
            raise
        self._stop_if_ended()  # again, because the last turn may have ended without a request to the model

    def _stop_if_ended(self) -> None:
        # An agent that is used as a tool passes errors of its tools to its model and continues. This check before each
        # request to a model prevents requests whose results would be discarded.
        self._ended = self._ended or self._refused
        if self._ended is not None:
            raise self._ended

    async def _recover(
        self,
        result: RunResultStreaming,
        options: RunOptions[TContext],
        run_streamed: Callable[..., RunResultStreaming],
    ) -> RunResultStreaming:
        """Start the recovery run, in which the last agent wraps up."""
        if conf.RUNNER_LOG != "none":
            await self.log("All turns are used; wrapping up.")
        options["max_turns"] = self.recovery_turns
        # The same wrapper contains approvals and accumulates the usage.
        options["context"] = cast(TContext, result.context_wrapper)
        if options.get("previous_response_id") or options.get("auto_previous_response_id"):
            options["previous_response_id"] = result.last_response_id
        conversation = unsaved_conversation(result, options)
        wrap_up: TResponseInputItem = {"role": "user", "content": self.prompts.wrap_up}
        return run_streamed(result.last_agent, [*conversation, wrap_up], **options)

    async def _add_usage(self, usage: dict[str, int], cost: Decimal | None) -> None:
        try:
            await (self.add_usage(usage) if cost is None else self.add_usage(usage, cost))
        except InvalidTransition as error:
            self._refused = error  # prevents the next request to a model
            raise

    async def _save_usage_of_failed(self, usage: UsageRecorder) -> None:
        """Save the usage up to a failure or cancellation, which the caller raises afterwards."""
        try:
            await usage.finish()
        except Exception:
            logger.warning(
                "Could not save the token usage of a failed run.",
                exc_info=True,
                extra={"agent_id": str(self.agent_id)},
            )


async def _stop(result: RunResultStreaming) -> None:
    """Cancel the run of `result` and wait at most `CANCEL_TIMEOUT` seconds for its end."""
    task = result.run_loop_task
    if task is not None and not task.done():
        result.cancel()
        await asyncio.wait([task], timeout=CANCEL_TIMEOUT)
