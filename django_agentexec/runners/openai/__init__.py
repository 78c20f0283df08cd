"""The runner for the OpenAI Agents SDK. No other part of this package imports `agents`."""

from __future__ import annotations

try:
    from .runner import Forwarder, OpenAIRunner
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("agents", "openai"):
        raise
    raise ImportError(
        f"OpenAIRunner needs the OpenAI Agents SDK: pip install 'django-agentexec[openai]' ({error})", name=error.name
    ) from error

__all__ = ["Forwarder", "OpenAIRunner"]
