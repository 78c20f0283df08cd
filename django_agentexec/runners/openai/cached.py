"""A cache of model answers, in Django's cache framework, for requests with temperature 0.

An answer is found again by the model and the whole request. By default tenants do not share answers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agents import FunctionTool, Model, ModelSettings
from agents.items import ModelResponse
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache, InvalidCacheBackendError

from django_agentexec.calls.paths import digest_of
from django_agentexec.conf import conf
from django_agentexec.current import OwningAttempt
from django_agentexec.exceptions import InvalidOption
from django_agentexec.expressions import text_form
from django_agentexec.logs import ThrottledLogger
from django_agentexec.parsing import as_seconds
from django_agentexec.policy import get_policy

from .candidates import PROMPT_CACHE_KEY, ModelRequest, has_hosted_tools
from .sdk_models import name_of, provider_of
from .wire import stored_response

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)

FORMAT = 1
"""Of keys and entries: another number invalidates all entries."""
NOT_IN_KEY = frozenset(
    {
        *("retry", "timeout", "include_usage", "preserve_raw_usage", "metadata"),
        *("prompt_cache_retention", "prompt_cache_options"),
    }
)
"""Settings that do not change the answer."""


@dataclass(frozen=True, kw_only=True)
class ModelCache:
    """Where and how long answers are kept, and who shares them.

    `ttl` is in seconds, by default `MODEL_CACHE_TTL`; `using` is an alias in `CACHES`, by default `MODEL_CACHE`.
    Activities with the same values of the metadata keys `tenant` share answers. By default these are the `keys` of a
    `TenantPolicy`, under other policies the whole metadata; `tenant=()` shares answers among all activities.

    Raises `InvalidOption` for invalid values.
    """

    ttl: float | timedelta | None = None
    using: str | None = None
    tenant: Collection[str] | None = None

    def __post_init__(self) -> None:
        if self.ttl is not None:
            seconds = as_seconds(self.ttl)
            if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < 1e9:
                raise InvalidOption(f"ModelCache(ttl={self.ttl!r}) must be seconds above 0, or a timedelta.")
        if self.tenant is not None and (
            isinstance(self.tenant, str) or not all(isinstance(key, str) and key.strip() for key in self.tenant)
        ):
            raise InvalidOption(
                f"ModelCache(tenant={self.tenant!r}) must be a list of metadata keys, none of them empty; tenant=() "
                "shares answers among all activities."
            )

    @classmethod
    def from_option(cls, value: object, source: str) -> ModelCache | None:
        """Return the cache for a value of the option `cache`. Raises `InvalidOption`, which names `source`."""
        if isinstance(value, cls):
            return value
        if isinstance(value, bool):
            return cls() if value else None
        raise InvalidOption(f"{source}(cache={value!r}) must be True, False or a ModelCache.")

    @property
    def alias(self) -> str:
        """The alias of the cache."""
        return self.using or conf.MODEL_CACHE

    @property
    def seconds(self) -> float:
        """How long an answer is kept."""
        return conf.MODEL_CACHE_TTL if self.ttl is None else as_seconds(self.ttl)

    def entry(self, attempt: OwningAttempt, agent: str, model: Model, request: ModelRequest) -> CacheEntry | None:
        """Return the place of the answer to a request, or None for a request whose answer is not cached.

        Raises `InvalidOption` for another temperature than 0, and for an unknown alias.
        """
        values = request.values
        if values.get("previous_response_id") or values.get("conversation_id"):
            return None  # the provider stores the conversation, which must contain the call
        if has_hosted_tools(values.get("tools") or []):
            return None  # they have effects at the provider
        settings: ModelSettings = values["model_settings"]
        several: Any = model
        if hasattr(several, "primary_settings"):  # a ResilientModel
            settings, model = several.primary_settings(settings), several.primary
        if settings.temperature != 0:
            raise InvalidOption(
                f"Agent {agent!r} has the temperature {settings.temperature!r}, but answers are cached for temperature "
                "0 only: set model_settings=ModelSettings(temperature=0), or give the cache to single agents, as in "
                "Agent(model=ResilientModel([...], cache=True))."
            )
        name = provider_of(model), name_of(model)
        key = digest_of(FORMAT, name, self._scope(attempt), _settings(settings), *_contents(values))
        return CacheEntry(self._backend(), f"{conf.KEY_PREFIX}:answer:{key}", self.seconds)

    def _backend(self) -> BaseCache:
        try:
            return caches[self.alias]
        except InvalidCacheBackendError as error:
            raise InvalidOption(
                f"The cache for answers of models is {self.alias!r}, which CACHES does not contain. Change ModelCache("
                "using=...) or AGENTEXEC['MODEL_CACHE']."
            ) from error

    def _scope(self, attempt: OwningAttempt) -> tuple[str, Any]:
        """Return what activities have in common that share answers."""
        if self.tenant is not None and not self.tenant:
            return "all", None
        if self.tenant is None:
            tenant = get_policy().tenant_of(attempt.metadata)
            if tenant is None:
                return "metadata", dict(attempt.metadata)
        else:
            texts = {key: text_form(attempt.metadata.get(key)) for key in self.tenant}
            tenant = {} if None in texts.values() else {key: str(text) for key, text in texts.items()}
        # An activity without a tenant shares answers with no other.
        return ("tenant", dict(tenant)) if tenant else ("activity", str(attempt.agent_id))


@dataclass(frozen=True)
class CacheEntry:
    """The place of an answer in a cache. An unavailable cache is empty."""

    cache: BaseCache
    key: str
    ttl: float

    async def read(self) -> dict[str, Any] | None:
        """Return the name and provider of the model that has answered, and its answer; None without an entry."""
        try:
            text = await self.cache.aget(self.key)
            entry = None if text is None else json.loads(text)
        except Exception as error:  # noqa: BLE001  # backends raise the errors of their clients
            _log.warn("Could not read the cache of model answers; the model is called.", error)
            return None
        return entry if isinstance(entry, dict) and entry.keys() >= {"name", "provider", "answer"} else None

    async def write(self, model: Model, response: ModelResponse) -> None:
        """Store an answer of `model`."""
        entry = {"name": name_of(model), "provider": provider_of(model), "answer": stored_response(response)}
        try:
            await self.cache.aset(self.key, json.dumps(entry), timeout=self.ttl)
        except Exception as error:  # noqa: BLE001  # as above
            _log.warn("Could not write to the cache of model answers.", error)


def _settings(settings: ModelSettings) -> dict[str, Any]:
    values = {name: value for name, value in settings.to_json_dict().items() if name not in NOT_IN_KEY}
    if values.get("extra_args"):
        values["extra_args"] = {
            name: value for name, value in values["extra_args"].items() if name != PROMPT_CACHE_KEY
        } or None
    return {name: value for name, value in values.items() if value is not None}


def _contents(values: Mapping[str, Any]) -> list[Any]:
    """Return the parts of a request that determine the answer, as values for a digest."""
    schema: Any = values.get("output_schema")
    is_plain = schema is None or schema.is_plain_text()
    return [
        values.get("system_instructions"),
        values.get("input"),
        values.get("prompt"),
        [_tool(tool) for tool in values.get("tools") or []],
        [(each.tool_name, each.tool_description, each.input_json_schema) for each in values.get("handoffs") or []],
        None if is_plain else (schema.name(), schema.json_schema(), schema.is_strict_json_schema()),
    ]


def _tool(tool: FunctionTool) -> tuple[Any, ...]:
    return tool.name, tool.description, tool.params_json_schema, tool.strict_json_schema
