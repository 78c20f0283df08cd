"""What a run gets where its caller said nothing: a trace that names the activity, and token counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from agents import Agent, ModelSettings, RunConfig

UNNAMED_WORKFLOW = RunConfig.workflow_name  # the dataclass's default, a class attribute


def with_defaults(
    config: RunConfig | dict[str, Any] | None, agent: Agent[Any], agent_id: UUID
) -> RunConfig | dict[str, Any]:
    """Return `config` (left as it is) with a trace name, group and metadata, and usage in streams.

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
        "model_settings": _counting(config.model_settings, agent),
    }


def _counting(settings: ModelSettings | None, agent: Agent[Any]) -> ModelSettings | None:
    """Ask for usage in streams, which chat-completions servers leave out unless asked.

    The SDK asks only api.openai.com. A starting agent that says yes or no itself is left alone.
    """
    if agent.model_settings.include_usage is not None:
        return settings
    return ModelSettings(include_usage=True).resolve(settings)
