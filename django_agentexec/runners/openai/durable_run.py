"""`DurableRun`: one recorded run of an agent for a handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agents import Agent, RunResultStreaming, RunState
from agents.items import ModelResponse

from django_agentexec.budgets.calls import RunCharge
from django_agentexec.budgets.options import RunBudget
from django_agentexec.calls.journal import journal_of
from django_agentexec.calls.paths import digest_of
from django_agentexec.calls.position import Position, at_position, current_scope
from django_agentexec.calls.recording import place_run
from django_agentexec.current import OwningAttempt
from django_agentexec.exceptions import InvalidTransition
from django_agentexec.models import CallKind

from . import nested
from .approvals import Policies
from .cached import ModelCache
from .durable import DurableAgents, agents_of_run, end_run, with_own_agents
from .silent_hooks import SilentHooks
from .text import TextStream
from .tool_names import ToolNames
from .wire import text_of

INVALID_ARGUMENTS = "Error: the arguments are not a JSON object, so the tool was not called. Call it again."


class DurableRun:
    """A run whose calls are recorded and replayed. `text` publishes replayed texts."""

    def __init__(
        self,
        attempt: OwningAttempt,
        policies: Policies,
        tool_names: ToolNames,
        on_change: str,
        text: TextStream | None = None,
        budget: RunBudget | None = None,
        cache: ModelCache | None = None,
    ) -> None:
        self.attempt = attempt
        self._tool_names = tool_names
        self._on_change = on_change
        self._text = text
        self._charge = RunCharge(budget) if budget is not None else None
        self._agents = DurableAgents(policies, self._show_replayed, tool_names, self._charge, cache)
        self._runner = nested.install().inner
        self._position: Position
        self._options: dict[str, Any]
        self._agent: Agent[Any]
        self._input: Any
        self._recovery: Position | None = None

    async def begin(self, agent: Agent[Any], input: Any, key: str | None, options: dict[str, Any]) -> None:
        """Find the run's place and record its start. `options` are those of the SDK, and are changed."""
        calls = (await journal_of(self.attempt)).calls.values()
        self._tool_names.begin(agent, {call.name for call in calls if call.kind == CallKind.TOOL})
        self._position = await self._place(agent, input, key)
        if self._charge is not None:
            self._charge.path = self._position.path
        # The SDK binds the approvals of a state to the agents that it has seen.
        self._agents = self._position.copies or self._agents
        self._options = options
        options["run_config"] = self._agents.config(options.get("run_config"))
        options["hooks"] = SilentHooks(options["hooks"])
        self._agent = self._agents.copy_of(agent)
        self._input = self._agents.resumed(input) if isinstance(input, RunState) else input
        journal = self._position.journal
        journal.active_runs.add(self._position.path)
        if self._text is not None and journal.is_resumed:
            self._text.restart(agent.name)

    @property
    def refusal(self) -> InvalidTransition | None:
        """Why a write of the run was refused; the SDK may wrap this exception."""
        return self._position.journal.refusal

    async def _place(self, agent: Agent[Any], input: Any, key: str | None) -> Position:
        if isinstance(input, RunState):
            scope = await current_scope(self.attempt)
            if scope.path in scope.journal.paused:
                return scope.journal.paused.pop(scope.path)
            input = None
        return await place_run(self.attempt, agent.name, input, key, self._on_change)

    def start(self) -> RunResultStreaming:
        """Start the run."""
        return self._start(self._position, self._agent, self._input)

    def recover(self, agent: Agent[Any], input: Any, **options: Any) -> RunResultStreaming:
        """Start the wrap-up after the last turn."""
        self._recovery = position = self._position.recovery()
        position.begin(agent.name, digest_of(input), None)
        self._options, self._agent = options, self._agents.copy_of(agent)
        return self._start(position, self._agent, input)

    @property
    def _latest(self) -> Position:
        return self._recovery or self._position

    def _start(self, position: Position, agent: Agent[Any], input: Any) -> RunResultStreaming:
        token = agents_of_run.set(self._agents)
        try:
            with at_position(position):
                return self._runner.run_streamed(agent, input, **self._options)
        finally:
            agents_of_run.reset(token)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the end of a run that fails."""
        try:
            yield
        except BaseException as error:
            self._record_end(None, error)
            self._leave()
            raise

    async def written(self) -> None:
        """Wait until the ends of all calls are committed."""
        await self._position.journal.written()

    def end(self, result: RunResultStreaming) -> None:
        """Record the end of the run, and replace the durable copies in its result by the user's agents."""
        if result.interruptions and self._position.scope_path is not None:
            self._position.journal.paused[self._position.scope_path] = self._position
            self._position.copies = self._agents
        else:
            self._record_end(result, None)
            with_own_agents(result)
        self._leave()

    def _record_end(self, result: RunResultStreaming | None, error: BaseException | None) -> None:
        for position in filter(None, (self._recovery, self._position)):
            end_run(position, result, error)

    async def without_invalid_calls(self, result: RunResultStreaming) -> RunResultStreaming:
        """Suspend the activity if the run waits for decisions.

        Otherwise the interrupted calls have arguments that are not JSON: reject them, and continue.
        """
        journal = self._position.journal
        if journal.requests_of(self._position.path):
            await journal.active_runs.pause(self._position.path)
            raise self.attempt.suspend_for_decision(list(journal.requests.values()))
        state = result.to_state()
        for item in result.interruptions:
            state.reject(item, rejection_message=INVALID_ARGUMENTS)
        return self._start(self._latest, self._agent, state)

    async def end_if_halted(self) -> None:
        """Raise `Suspended` or `BudgetExceeded` if a call of the run, or of a run inside it, exceeds a budget.

        The SDK may have wrapped the exception of the call, and a tool may have caught it.
        """
        journal, path = self._position.journal, self._position.path
        halted = journal.halts.of(path)
        if halted is None:
            return
        if halted.is_suspension:
            await journal.active_runs.pause(path)
        raise halted.outcome

    def _leave(self) -> None:
        self._position.leave()
        self._position.journal.active_runs.remove(self._position.path)

    def _show_replayed(self, position: Position, response: ModelResponse) -> None:
        # Texts of nested runs are not published.
        if self._text is not None and any(position is own for own in (self._position, self._recovery)):
            for text in filter(None, text_of(response)):
                self._text.replay(text, position.agent)
