"""Choice of the agents' model: OpenAI's, a compatible server's, or the offline model. From the environment:

- nothing set: the offline model, which needs no network
- `OPENAI_API_KEY`: OpenAI; `AGENTEXEC_DEMO_MODEL` names the model, else it is the SDK's default
- `OPENAI_BASE_URL` and `AGENTEXEC_DEMO_MODEL`: any server with OpenAI's protocol
- `OPENAI_API`: `responses` or `chat` (the default with `OPENAI_BASE_URL`, since every server supports it)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:  # importing the SDK takes a second, and describing the choice does not need it
    from agents import Model


@dataclass(frozen=True)
class ModelChoice:
    """The model that the environment selects. `name` is empty for the SDK's default."""

    kind: Literal["offline", "responses", "chat"]
    name: str = ""
    base_url: str = ""

    def __str__(self) -> str:
        if self.kind == "offline":
            return (
                "the OFFLINE model: no language model, but rules that call the same tools on the same "
                "documents. Set OPENAI_API_KEY for a real one"
            )
        return f"{self.name or 'the default model'} at {self.base_url or 'OpenAI'} ({self.kind} API)"


def model_choice() -> ModelChoice:
    """Read the environment; raises `ImproperlyConfigured` if it contradicts itself."""
    key, base_url = os.environ.get("OPENAI_API_KEY", ""), os.environ.get("OPENAI_BASE_URL", "")
    name = os.environ.get("AGENTEXEC_DEMO_MODEL", "")
    api = os.environ.get("OPENAI_API", "") or ("chat" if base_url else "responses")
    if not key and not base_url:
        return ModelChoice("offline")
    if base_url and not name:
        raise ImproperlyConfigured(f"OPENAI_BASE_URL is {base_url!r}, but no model is named: set AGENTEXEC_DEMO_MODEL.")
    if api == "chat":
        return ModelChoice("chat", name, base_url)
    if api == "responses":
        return ModelChoice("responses", name, base_url)
    raise ImproperlyConfigured(f"OPENAI_API is {api!r}, but must be 'responses' or 'chat'.")


@cache
def build_model() -> Model:
    """Return the chosen model, one per process, so that its connections are shared."""
    choice = model_choice()
    if choice.kind == "offline":
        from .offline import OfflineModel

        return OfflineModel()
    from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel
    from agents.models import get_default_model
    from openai import AsyncOpenAI

    name = choice.name or get_default_model()
    # Local servers need no key, but the client needs a value. The task retries, so the client does not.
    key = os.environ.get("OPENAI_API_KEY") or "none"
    client = AsyncOpenAI(api_key=key, base_url=choice.base_url or None, max_retries=0)
    if choice.kind == "chat":
        return OpenAIChatCompletionsModel(model=name, openai_client=client)
    return OpenAIResponsesModel(model=name, openai_client=client)
