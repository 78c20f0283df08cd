"""The name and the provider of a model of the SDK, for its price, its limits and its circuit breaker."""

from __future__ import annotations

from agents import Model

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
