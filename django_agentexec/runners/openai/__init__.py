"""The runner for the OpenAI Agents SDK. Only this package imports the SDK's package `agents`."""

from __future__ import annotations

try:
    from .cached import ModelCache
    from .candidates import ModelCandidate
    from .resilient import ResilientModel
    from .runner import Forwarder, OpenAIRunner
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("agents", "openai"):
        raise
    raise ImportError(
        f"OpenAIRunner needs the OpenAI Agents SDK: pip install 'django-agentexec[openai]' ({error})", name=error.name
    ) from error

__all__ = ["Forwarder", "ModelCache", "ModelCandidate", "OpenAIRunner", "ResilientModel"]
