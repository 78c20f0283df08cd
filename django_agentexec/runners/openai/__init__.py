"""The runner for the OpenAI Agents SDK. No other part of this package imports `agents`."""

from __future__ import annotations

from .runner import Forwarder, OpenAIRunner

__all__ = ["Forwarder", "OpenAIRunner"]
