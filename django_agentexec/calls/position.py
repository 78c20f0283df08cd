"""`Scope` and `Position`: where in the recorded calls of an activity the running code is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ..current import OwningAttempt
from ..exceptions import InvalidOption
from ..models import AgentCall, Approval, ApprovalKind, CallKind, CallState
from ..telemetry.context import key_inside, key_of_run, within_call
from .journal import Journal, journal_of
from .paths import clean, inside_call, is_overlapping, joined, short_call_id

MAX_CALLBACK_ROUNDS = 3  # of the event loop until the callback of an ended task has run


@dataclass
class Scope:
    """A place in which runs of agents begin: a handler, a step, or a tool call."""

    journal: Journal
    path: str
    call_key: str = ""
    """Inside a tool call: the stable key of the call."""
    questions: int = 0
    """The number of questions to a person that code in this place has asked."""
    is_reused: bool = False
    """Inside a tool call: whether it has returned the result of an earlier call."""
    _taken: set[str] = field(default_factory=set)
    _active: int = 0

    def begin_run(self, agent: str, digest: str, key: str | None) -> Position:
        """Return the position of a run that begins now. Raises `InvalidOption` for a key that was used before.

        Runs are matched with recorded runs by agent and input, then by their order. Where runs have overlapped, their
        order means nothing: there, a run whose input has changed is made again.
        """
        path = self._path_of_key(key) if key is not None else self._path_of_recorded_run(agent, digest)
        if path is None:
            path = self._new_path(agent, digest)
        self._taken.add(path)
        self._active += 1
        return Position(self.journal, path, scope=self, scope_path=self.path)

    def end_run(self) -> None:
        """Note that a run has ended."""
        self._active -= 1

    async def wait_for_ended_runs(self) -> None:
        """Let the callbacks of runs that have just ended run: the callback of a streamed run follows its end."""
        for _ in range(MAX_CALLBACK_ROUNDS if self._active else 0):
            await asyncio.sleep(0)

    def _path_of_key(self, key: str) -> str:
        if not (isinstance(key, str) and key):
            raise InvalidOption(f"The key of a run, key={key!r}, must be a text such as 'summary', or None.")
        path = joined(self.path, f"~key={clean(key)}")
        if path in self._taken:
            raise InvalidOption(f"Two runs of this handler have the key {key!r}; each needs its own key.")
        return path

    def _path_of_recorded_run(self, agent: str, digest: str) -> str | None:
        all_runs = self.journal.runs_of(self.path)
        runs = [run for run in all_runs if run.path not in self._taken and "~key=" not in run.path]
        for run in runs:
            if run.agent == agent and run.digest == digest:
                return run.path
        if self._active or any(is_overlapping(run.path) for run in all_runs):
            return None
        return runs[0].path if runs else None

    def _new_path(self, agent: str, digest: str) -> str:
        used = self._taken | {run.path for run in self.journal.runs_of(self.path)}
        if self._active:
            return _free(used, lambda number: joined(self.path, f"~{clean(agent)}:{digest[:8]}#{number}"), first=0)
        return _free(used, lambda number: self.path if number == 1 else joined(self.path, f"~{number}"), first=1)


def _free(used: set[str], path: Any, first: int) -> str:
    number = first
    while path(number) in used:
        number += 1
    return str(path(number))


@dataclass
class Position:
    """The position of one run of an agent: its path, and the number of its next model call."""

    journal: Journal
    path: str
    scope: Scope | None = None
    scope_path: str | None = None
    """The path of the scope in which the run began; None for a run next to another run."""
    run: AgentCall | None = None
    """The row of the run."""
    agent: str = ""
    """The name of the agent that makes the next model call."""
    ordinal: int = 0
    copies: Any = None
    """While the run waits for a decision of its handler: the runner's copies of its agents."""
    answered_by: Any = None
    """The model that has answered the latest model call, if it was chosen among several."""
    is_replaying: bool = False
    """Whether the latest model call was answered from the journal."""
    input_sizes: list[int] = field(default_factory=list)
    """The number of input items of each model call."""
    _side_runs: Counter[str] = field(default_factory=Counter)

    def begin_side_run(self, agent: str, digest: str) -> Position:
        """Return the position of a run next to this run, such as that of an agent in a guardrail."""
        name = f"^{clean(agent)}:{digest[:8]}"
        number = self._side_runs[name]
        self._side_runs[name] += 1
        return Position(self.journal, joined(self.path, f"{name}#{number}"))

    def recovery(self) -> Position:
        """Return the position of the wrap-up after the last turn."""
        return Position(self.journal, joined(self.path, "+recovery"))

    def scope_of_call(self, call_id: str) -> Scope:
        """Return the scope inside a tool call that the latest model call has requested."""
        path = inside_call(self.path, self.ordinal - 1, call_id)
        return Scope(self.journal, path, call_key=f"{self.journal.attempt.agent_id}:{path}")

    def begin(self, agent: str, digest: str, arguments: Any) -> AgentCall:
        """Queue the record of the run's start, or find the recorded run, and return its row."""
        journal = self.journal
        run = journal.find(self.path, CallKind.AGENT)
        if run is None:
            run = journal.new_call(self.path, CallKind.AGENT, agent=agent, digest=digest, arguments=arguments)
            journal.begin_soon(run)
        elif run.digest != digest and not run.has_changed:
            run.has_changed = True
            journal.begin_soon(run)
        self.run = run
        return run

    def end(self, state: CallState, output: Any = None, error: str = "") -> None:
        """Queue the record of the run's end, unless it is recorded."""
        run = self.run
        if run is not None and run.state != CallState.DONE:
            run.state, run.output, run.error = state, output, error
            self.journal.finish_soon(run)

    def recorded_run(self) -> AgentCall | None:
        """Return the recorded run at this position, or None."""
        return self.journal.find(self.path, CallKind.AGENT)

    def leave(self) -> None:
        """Note that the run has ended or waits, so that later runs no longer overlap with it."""
        if self.scope is not None:
            self.scope.end_run()
            self.scope = None

    def next_model_call(self) -> AgentCall | None:
        """Return the recorded answer to the run's next model call, or None."""
        call = self.journal.find(self.path, CallKind.MODEL, self.ordinal)
        return call if call is not None and call.state == CallState.DONE else None

    def tool_call(self, call_id: str) -> AgentCall | None:
        """Return the record of a tool call that the latest model call has requested, or None."""
        return self.journal.find(self.path, CallKind.TOOL, max(0, self.ordinal - 1), call_id)

    def is_in_doubt(self, call: AgentCall | None) -> bool:
        """Return whether a call was started when its process died."""
        return call is not None and call.state == CallState.STARTED and self.journal.is_foreign(call)

    def approval(self, call_id: str) -> Approval | None:
        """Return the latest request for a decision about a tool call, or None."""
        key = self.path, short_call_id(call_id)
        found = (each for each in reversed(self.journal.approvals) if (each.path, each.call_id) == key)
        return next((each for each in found if not each.is_void), None)

    def changed_arguments(self, call_id: str) -> Any:
        """Return the arguments that a person has approved in place of those of a tool call, or None.

        A later decision to run the call again, since its process had died, does not take them back.
        """
        key = self.path, short_call_id(call_id)
        found = [
            each
            for each in self.journal.approvals
            if (each.path, each.call_id) == key and each.kind == ApprovalKind.APPROVAL and not each.is_void
        ]
        return found[-1].changed_arguments if found else None


_position: ContextVar[Position | None] = ContextVar("agentexec_position", default=None)
_scope: ContextVar[Scope | None] = ContextVar("agentexec_scope", default=None)


async def current_scope(attempt: OwningAttempt) -> Scope:
    """Return the scope in which a run begins now: the tool call, the step or the handler that calls."""
    scope = _scope.get()
    journal = await journal_of(attempt)
    if scope is not None and scope.journal is journal:
        return scope
    return journal.scopes.setdefault(attempt, Scope(journal, attempt.scope))


def innermost_scope() -> Scope | None:
    """Return the scope of the tool call whose code calls, or None outside of tool calls."""
    return _scope.get()


def current_position() -> Position | None:
    """Return the position of the calling run, or None outside of recorded runs."""
    return _position.get()


@contextmanager
def at_position(position: Position | None) -> Iterator[None]:
    """Make `position` the current position."""
    token = _position.set(position)
    try:
        with within_call(position.journal.attempt, key_of_run(position.path)) if position else nullcontext():
            yield
    finally:
        _position.reset(token)


@contextmanager
def inside_scope(scope: Scope) -> Iterator[None]:
    """Let runs of agents begin in `scope`, as inside a tool call."""
    token, outer = _scope.set(scope), _position.set(None)
    try:
        with within_call(scope.journal.attempt, key_inside(scope.path)):
            yield
    finally:
        _position.reset(outer)
        _scope.reset(token)


def tool_key() -> str:
    """Return a key of the tool call that runs now: the same in each attempt, for idempotency in other systems.

    Raises `InvalidOption` outside of a tool of a durable run.
    """
    scope = _scope.get()
    if scope is None or not scope.call_key:
        raise InvalidOption(
            "tool_key() is called outside of a tool. It identifies a call of a tool by an agent that OpenAIRunner or "
            "another durable runner runs in a worker; use attempt.idempotency_key in a handler."
        )
    return scope.call_key
