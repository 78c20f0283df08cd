"""`ModelCandidate`: a model of a `ResilientModel`, with its limits and abilities, and what a request needs of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from agents import FunctionTool, Model, ModelSettings, OpenAIChatCompletionsModel
from agents.models import get_default_model_settings

from django_agentexec.exceptions import InvalidOption
from django_agentexec.parsing import as_seconds

from .sdk_models import name_of

CAPABILITIES = ("tools", "structured_output", "images", "hosted_tools", "server_state")
"""What a request may need of a model.

`hosted_tools` are tools that only the Responses API has, such as web search; `server_state` are conversations that the
provider stores (`previous_response_id`, `conversation_id`).
"""
RESPONSES_ONLY = frozenset({"hosted_tools", "server_state"})
DEFAULT_TIMEOUT = 120.0
"""Seconds without an event of a stream, or until a whole answer, after which a model counts as hanging."""
MAX_TIMEOUT = 86_400.0
PARAMETERS = (
    *("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing"),
    *("previous_response_id", "conversation_id", "prompt"),
)
"""The parameters of `Model.get_response` and `Model.stream_response`, in their order."""
PROMPT_CACHE_KEY, DERIVED_KEY = "prompt_cache_key", "agents-sdk:"
"""The argument that the SDK adds to the settings for models of OpenAI, and how the value begins that it derives."""
_TOOL_PARTS = ("name", "description", "params_json_schema")
_IMAGES = frozenset({"input_image", "image_url", "computer_screenshot"})


@dataclass(frozen=True)
class ModelCandidate:
    """A model of `ResilientModel`, and how it is called.

    `model` is a name or a `Model` of the SDK. `timeout` is in seconds: for the next event of a stream, or for an answer
    that is not streamed; None is no limit. `supports` lists its abilities among `CAPABILITIES` (by default all, of a
    model of the Chat Completions API those that this API has); requests that need another ability skip the model.
    `settings` replace settings of the agent.

    Raises `InvalidOption` for invalid values.
    """

    model: str | Model
    timeout: float | timedelta | None = field(default=DEFAULT_TIMEOUT, kw_only=True)
    supports: Collection[str] | None = field(default=None, kw_only=True)
    settings: ModelSettings | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model) and not (isinstance(self.model, str) and self.model.strip()):
            raise InvalidOption(
                f"ModelCandidate(model={self.model!r}) must be the name of a model, such as 'gpt-5-mini', or a Model "
                "of the agents SDK."
            )
        object.__setattr__(self, "timeout", valid_timeout(self.timeout, "ModelCandidate"))
        if self.supports is not None:
            object.__setattr__(self, "supports", _capabilities(self.supports))
        if self.settings is not None and not isinstance(self.settings, ModelSettings):
            raise InvalidOption(f"ModelCandidate(settings={self.settings!r}) must be ModelSettings of the agents SDK.")

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.model if isinstance(self.model, str) else name_of(self.model)

    def lacks(self, needs: Collection[str], model: Model) -> list[str]:
        """Return which of `needs` the model, resolved to `model`, does not support."""
        supported = set(CAPABILITIES if self.supports is None else self.supports)
        if self.supports is None and isinstance(getattr(model, "inner", model), OpenAIChatCompletionsModel):
            supported -= RESPONSES_ONLY
        return [need for need in needs if need not in supported]

    def settings_for(self, settings: ModelSettings) -> ModelSettings:
        """Return the settings of a call: the agent's, over those that the SDK implies for a name, under the own."""
        if isinstance(self.model, str):
            settings = get_default_model_settings(self.model).resolve(settings)
        return settings.resolve(self.settings)


class ModelRequest:
    """A request of a model, in the form of the parameters of `Model.get_response`."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = dict(zip(PARAMETERS, args, strict=False)) | dict(kwargs)

    def for_candidate(self, candidate: ModelCandidate, model: Model) -> dict[str, Any]:
        """Return the keyword arguments of the call of a candidate, which is resolved to `model`."""
        settings = candidate.settings_for(self.values["model_settings"])
        extra = settings.extra_args or {}
        if str(extra.get(PROMPT_CACHE_KEY, "")).startswith(DERIVED_KEY) and not supports_cache_key(model):
            rest = {name: value for name, value in extra.items() if name != PROMPT_CACHE_KEY}
            settings = replace(settings, extra_args=rest or None)
        return {**self.values, "model_settings": settings}

    @property
    def max_tokens(self) -> int | None:
        """The longest answer that the settings permit."""
        found: int | None = getattr(self.values.get("model_settings"), "max_tokens", None)
        return found

    def billed(self) -> list[Any]:
        """Return everything that the provider counts as input."""
        values, schema = self.values, self.values.get("output_schema")
        return [
            values.get("system_instructions"),
            values.get("input"),
            [[getattr(tool, name, None) for name in _TOOL_PARTS] for tool in values.get("tools") or ()],
            [(each.tool_name, each.tool_description, each.input_json_schema) for each in values.get("handoffs") or ()],
            None if schema is None or schema.is_plain_text() else schema.json_schema(),
        ]

    def needs(self) -> list[str]:
        """Return the capabilities that the request needs."""
        values, tools = self.values, self.values.get("tools") or []
        schema = values.get("output_schema")
        found = {
            "tools": bool(tools or values.get("handoffs")),
            "structured_output": schema is not None and not schema.is_plain_text(),
            "images": _has_image(values.get("input")),
            "hosted_tools": has_hosted_tools(tools),
            "server_state": bool(values.get("previous_response_id") or values.get("conversation_id")),
        }
        return [need for need in CAPABILITIES if found[need]]


def has_hosted_tools(tools: Collection[Any]) -> bool:
    """Return whether there are other tools than functions."""
    return any(not isinstance(tool, FunctionTool) for tool in tools)


def supports_cache_key(model: Model) -> bool:
    """Return whether a model accepts the prompt cache key that the SDK derives from the run."""
    supports = getattr(model, "_supports_default_prompt_cache_key", None)
    return bool(supports()) if callable(supports) else False


def _has_image(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("type") in _IMAGES or any(
            _has_image(part) for part in value.values() if isinstance(part, (Mapping, list))
        )
    return isinstance(value, list) and any(map(_has_image, value))


def valid_timeout(timeout: float | timedelta | None, source: str) -> float | None:
    """Return a timeout in seconds; None is no limit. Raises `InvalidOption`, which names `source`."""
    if timeout is None:
        return None
    seconds = as_seconds(timeout)
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if not is_number or not 0 < seconds <= MAX_TIMEOUT:
        raise InvalidOption(
            f"{source}(timeout={timeout!r}) must be seconds above 0 and up to {MAX_TIMEOUT:g}, a timedelta, or None "
            "for no limit."
        )
    return float(seconds)


def _capabilities(given: Collection[str]) -> frozenset[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in CAPABILITIES:
            known = ", ".join(repr(each) for each in CAPABILITIES)
            raise InvalidOption(f"ModelCandidate(supports=...) names {name!r}, but the abilities are {known}.")
    return frozenset(names)
