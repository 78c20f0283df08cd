"""Defaults of a run: a trace that names the activity, token counts, and no retries inside the client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from agents import Agent, ModelRetrySettings, ModelSettings, RunConfig

UNNAMED_WORKFLOW = RunConfig.workflow_name  # the dataclass's default, a class attribute


def with_defaults(
    config: RunConfig | dict[str, Any] | None, agent: Agent[Any], agent_id: UUID
) -> RunConfig | dict[str, Any]:
    """Return `config` (left as it is) with a trace name, group and metadata, usage in streams, and no client retries.

    A `RunConfig` gives a `RunConfig`, anything else a dictionary: the SDK closes the model provider
    after the run only if it has made it itself, that is, if it was not handed a whole `RunConfig`.
    """
    if isinstance(config, RunConfig):
        return replace(config, **_changes(config, agent, agent_id))
    given = dict(config or {})
    return {**given, **_changes(RunConfig(**given), agent, agent_id)}


def _changes(config: RunConfig, agent: Agent[Any], agent_id: UUID) -> dict[str, Any]:
    unnamed = config.workflow_name == UNNAMED_WORKFLOW
    return {
        "workflow_name": agent.name if unnamed else config.workflow_name,
        "group_id": config.group_id or str(agent_id),
        "trace_metadata": {"agent_id": str(agent_id), **(config.trace_metadata or {})},
        "model_settings": _without_client_retries(_counting(config.model_settings, agent), config, agent),
    }


def _counting(settings: ModelSettings | None, agent: Agent[Any]) -> ModelSettings | None:
    """Ask for usage in streams, which chat-completions servers leave out unless asked.

    The SDK asks only api.openai.com. A starting agent that says yes or no itself is left alone.
    """
    if agent.model_settings.include_usage is not None:
        return settings
    return ModelSettings(include_usage=True).resolve(settings)


def _without_client_retries(
    settings: ModelSettings | None, config: RunConfig, agent: Agent[Any]
) -> ModelSettings | None:
    """Switch off the retries of the client that the SDK makes for a model's name: the task retries, without a slot.

    Three tries of a client in each of four attempts would be twelve calls. Left alone are models that the project has
    made with a client of its own, and runs in which the config or an agent says how to retry.
    """
    model = agent.model if config.model is None else config.model
    is_said = settings is not None and settings.retry is not None
    if is_said or not (model is None or isinstance(model, str)) or _sets_retries(agent, set()):
        return settings
    return (settings or ModelSettings()).resolve(ModelSettings(retry=ModelRetrySettings(max_retries=0)))


def _sets_retries(agent: Agent[Any], seen: set[int]) -> bool:
    """Return whether this agent, or one that it can hand over to, has retry settings."""
    if id(agent) in seen:
        return False
    seen.add(id(agent))
    following = [each for each in agent.handoffs if isinstance(each, Agent)]
    return agent.model_settings.retry is not None or any(_sets_retries(each, seen) for each in following)
