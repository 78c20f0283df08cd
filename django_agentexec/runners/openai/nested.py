"""`DispatchingRunner`: finds runs that begin inside a durable run, such as agents used as tools and in guardrails.

Runs that are not recorded get limited models, and their answers are priced.

The SDK calls one runner per process for every `Runner.run`, and a worker process runs many activities at once. The
dispatching runner asks the context variables of the caller where it is, and leaves all other runs to the SDK.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agents import Agent, RunState
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner

from django_agentexec.calls.paths import digest_of
from django_agentexec.calls.position import Position, at_position, current_position, innermost_scope

from .approvals import Policies
from .durable import DurableAgents, agents_of_run, end_run, with_own_agents
from .limited_agents import limited_run, restore_agents
from .pricing import priced_run
from .silent_hooks import SilentHooks

_lock = threading.Lock()


class DispatchingRunner(AgentRunner):
    """Records runs inside durable runs. `inner` is the runner that executes them."""

    def __init__(self, inner: AgentRunner) -> None:
        self.inner = inner

    async def run(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        """Run an agent, recorded if it runs inside a durable run."""
        position = _begin(starting_agent, input)
        if position is None:
            agent, input, options = limited_run(starting_agent, input, options)
            options = priced_run(options)
            result = await self.inner.run(agent, input, **options)
            restore_agents(result)
            return result
        agent, input, options = _prepared(starting_agent, input, options)
        with _recorded(position):
            result = await self.inner.run(agent, input, **options)
        _ended(position, result)
        return result

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        """Run an agent with a stream, recorded if it runs inside a durable run."""
        position = _begin(starting_agent, input)
        if position is None:
            agent, input, options = limited_run(starting_agent, input, options)
            options = priced_run(options)
            result = self.inner.run_streamed(agent, input, **options)
            if agent is not starting_agent and result.run_loop_task is not None:
                result.run_loop_task.add_done_callback(lambda _: restore_agents(result))
            return result
        agent, input, options = _prepared(starting_agent, input, options)
        with at_position(position):
            result = self.inner.run_streamed(agent, input, **options)

        def ended(task: Any) -> None:
            if task.cancelled() or task.exception() is not None:
                end_run(position, None, None if task.cancelled() else task.exception())
                position.leave()
            else:
                _ended(position, result)

        if result.run_loop_task is not None:
            result.run_loop_task.add_done_callback(ended)
        return result

    def run_sync(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        """Run an agent from a thread without an event loop, recorded if it runs inside a durable run."""
        position = _begin(starting_agent, input)
        if position is None:
            agent, input, options = limited_run(starting_agent, input, options)
            options = priced_run(options)
            result = self.inner.run_sync(agent, input, **options)
            restore_agents(result)
            return result
        agent, input, options = _prepared(starting_agent, input, options)
        with _recorded(position):
            result = self.inner.run_sync(agent, input, **options)
        _ended(position, result)
        return result


def install() -> DispatchingRunner:
    """Let the SDK call the dispatching runner, once per process, and return it."""
    with _lock:
        current = get_default_agent_runner()
        if not isinstance(current, DispatchingRunner):
            current = DispatchingRunner(current)
            set_default_agent_runner(current)
        return current


def _begin(agent: Agent[Any], input: Any) -> Position | None:
    """Return the position of a run that begins now inside a durable run, or None outside of durable runs."""
    outer = current_position()
    if outer is not None:
        position = outer.begin_side_run(agent.name, digest_of(_content(input)))
    else:
        scope = innermost_scope()
        if scope is None:
            return None
        if isinstance(input, RunState) and scope.path in scope.journal.paused:
            return scope.journal.paused.pop(scope.path)
        position = scope.begin_run(agent.name, digest_of(_content(input)), None)
    position.begin(agent.name, digest_of(_content(input)), _content(input))
    return position


def _content(input: Any) -> Any:
    return None if isinstance(input, RunState) else input


def _prepared(agent: Agent[Any], input: Any, options: dict[str, Any]) -> tuple[Agent[Any], Any, dict[str, Any]]:
    agents = agents_of_run.get() or DurableAgents(Policies())
    options["run_config"] = agents.config(options.get("run_config"))
    options["hooks"] = SilentHooks(options.get("hooks"))
    return agents.copy_of(agent), agents.resumed(input) if isinstance(input, RunState) else input, options


@contextmanager
def _recorded(position: Position) -> Iterator[None]:
    """Run code at a position, and record the end of a run that fails."""
    try:
        with at_position(position):
            yield
    except BaseException as error:
        end_run(position, None, error)
        position.leave()
        raise


def _ended(position: Position, result: Any) -> None:
    if getattr(result, "interruptions", None):
        if position.scope_path is not None:
            position.journal.paused[position.scope_path] = position
    else:
        with_own_agents(result)
        end_run(position, result, None)
    position.leave()
