"""Default configuration of a run: a trace named after the agent, token counts, and no client retries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelRetrySettings, ModelSettings, RunConfig

from django_agentexec.exceptions import InvalidOption

from .model import own_provider
from .resilient import ResilientModel

UNNAMED_WORKFLOW = RunConfig.workflow_name  # the dataclass's default, a class attribute


def with_defaults(
    config: RunConfig | dict[str, Any] | None, agent: Agent[Any], agent_id: UUID
) -> RunConfig | dict[str, Any]:
    """Return a copy of `config` with trace name, group and metadata, usage in streams, and no client retries.

    Returns a `RunConfig` for a `RunConfig`, otherwise a dictionary: the SDK closes the model provider after the run
    only if it has created the provider, that is, if it did not receive a `RunConfig` object.
    """
    if isinstance(config, RunConfig):
        return replace(config, **_changes(config, agent, agent_id))
    options = dict(config or {})
    return {**options, **_changes(RunConfig(**options), agent, agent_id)}


def with_model(config: RunConfig | dict[str, Any] | None, model: ResilientModel) -> RunConfig | dict[str, Any]:
    """Return a copy of `config` with the model of all agents. Raises `InvalidOption` if it names a model itself."""
    given = config if isinstance(config, RunConfig) else RunConfig(**(config or {}))
    if given.model is not None:
        raise InvalidOption(
            f"RunConfig(model={given.model!r}) and OpenAIRunner(models=...) both set the model of a run: leave out one."
        )
    if isinstance(config, RunConfig):
        return replace(config, model=model.bound_to(own_provider(config.model_provider)))
    options = dict(config or {})
    provider = options.get("model_provider")
    return {**options, "model": model if provider is None else model.bound_to(own_provider(provider))}


def _changes(config: RunConfig, agent: Agent[Any], agent_id: UUID) -> dict[str, Any]:
    unnamed = config.workflow_name == UNNAMED_WORKFLOW
    return {
        "workflow_name": agent.name if unnamed else config.workflow_name,
        "group_id": config.group_id or str(agent_id),
        "trace_metadata": {"agent_id": str(agent_id), **(config.trace_metadata or {})},
        "model_settings": _without_client_retries(_with_usage(config.model_settings, agent), config, agent),
    }


def _with_usage(settings: ModelSettings | None, agent: Agent[Any]) -> ModelSettings | None:
    """Request usage in streams, which chat-completions servers omit by default.

    The SDK only requests it from api.openai.com. The setting of the starting agent, if any, has precedence.
    """
    if agent.model_settings.include_usage is not None:
        return settings
    return ModelSettings(include_usage=True).resolve(settings)


def _without_client_retries(
    settings: ModelSettings | None, config: RunConfig, agent: Agent[Any]
) -> ModelSettings | None:
    """Disable retries of the client that the SDK creates for a model name; the task retries without keeping a slot.

    Three tries of a client in each of four attempts would be twelve calls. Models that the project creates with its
    clients, and runs whose config or agents have retry settings, are not changed.
    """
    model = agent.model if config.model is None else config.model
    has_setting = settings is not None and settings.retry is not None
    is_named = model.has_names if isinstance(model, ResilientModel) else not isinstance(model, Model)
    if has_setting or not is_named or _sets_retries(agent, set()):
        return settings
    return (settings or ModelSettings()).resolve(ModelSettings(retry=ModelRetrySettings(max_retries=0)))


def _sets_retries(agent: Agent[Any], seen: set[int]) -> bool:
    """Return whether this agent, or an agent that it can hand off to, has retry settings."""
    if id(agent) in seen:
        return False
    seen.add(id(agent))
    following = [each for each in agent.handoffs if isinstance(each, Agent)]
    return agent.model_settings.retry is not None or any(_sets_retries(each, seen) for each in following)
