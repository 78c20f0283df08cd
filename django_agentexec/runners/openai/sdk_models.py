"""Models of the SDK: their names and providers, and the base of models that stand before another model."""

from __future__ import annotations

from typing import Any

from agents import Model
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest

from django_agentexec.costs.library import host_of_url, provider_of_url


def provider_of(model: Model) -> str:
    """Return the provider of an OpenAI-compatible model by its base URL, or "" for a model without one."""
    url = getattr(getattr(model, "_client", None), "base_url", None)
    return "" if url is None else provider_of_url(str(url))


def endpoint_of(model: Model) -> str:
    """Return the host (and port) of a model's base URL, or "" for a model without one."""
    url = getattr(getattr(model, "_client", None), "base_url", None)
    return "" if url is None else host_of_url(str(url))


def name_of(model: Model) -> str:
    """Return the name of a model, or that of its class."""
    return str(getattr(model, "model", "") or type(model).__name__)


def qualified_name(model: Model) -> str:
    """Return the name of a model after its provider, if that is known."""
    return "/".join(filter(None, (provider_of(model), name_of(model))))


class DelegatingModel(Model):
    """A model that stands before `inner`; subclasses define its calls. All other attributes are those of `inner`."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)

    async def close(self) -> None:
        """Close the inner model."""
        await self.inner.close()

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the advice of the inner model."""
        return self.inner.get_retry_advice(request)
