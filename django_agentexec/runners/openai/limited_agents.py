"""Runs that are not recorded, with limited models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents import Agent, Model, RunState

from django_agentexec.conf import conf
from django_agentexec.current import current_attempt

from .approvals import Policies
from .durable import DurableAgents, with_own_agents
from .limited import limited
from .silent_hooks import SilentHooks


class LimitedAgents(DurableAgents):
    """Copies of the agents of a run that is not recorded, with limited models."""

    def __init__(self) -> None:
        super().__init__(Policies())

    def wrap_model(self, model: Model) -> Model:
        """Return a model behind the limits."""
        return limited(model)

    def _tools_of(self, agent: Agent[Any]) -> Callable[[Any], Any]:
        async def get_all_tools(context: Any) -> list[Any]:
            return await type(agent).get_all_tools(agent, context)

        return get_all_tools


def limited_run(agent: Agent[Any], input: Any, options: dict[str, Any]) -> tuple[Agent[Any], Any, dict[str, Any]]:
    """Return what the SDK runs in place of a run inside an activity; without limits, the same."""
    attempt = current_attempt()
    if not conf.MODEL_LIMITS or attempt is None or not attempt.root.records_calls:
        return agent, input, options  # also in unit tests, which have no store
    agents = LimitedAgents()
    options = {
        **options,
        "run_config": agents.config(options.get("run_config")),
        "hooks": SilentHooks(options.get("hooks")),
    }
    return agents.copy_of(agent), agents.resumed(input) if isinstance(input, RunState) else input, options


def restore_agents(result: Any) -> None:
    """Replace the copies in the result of a limited run by the user's agents, unless the run is to be continued."""
    if conf.MODEL_LIMITS and not getattr(result, "interruptions", None):
        with_own_agents(result)
