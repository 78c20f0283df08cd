"""An agent with several calls of a model that has limits. Its model: `tests/e2e/test_limits.py`."""

from __future__ import annotations

import os
from uuid import UUID

from pydantic import BaseModel

from django_agentexec import task


class Provider(BaseModel):
    base_url: str


@task("limited_agent", max_retries=0)
async def limited_agent(agent_id: UUID, context: Provider) -> str:
    from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, function_tool
    from openai import AsyncOpenAI

    from django_agentexec import OpenAIRunner

    @function_tool
    def look_up(item: str) -> str:
        """Look up an item."""
        return f"{item} is fine"

    # The provider learns the process from the URL.
    client = AsyncOpenAI(base_url=f"{context.base_url}/{os.getpid()}", api_key="test", max_retries=2)
    assert client.chat.completions  # loads its modules, which would delay the first request
    agent = Agent(
        "Clerk",
        model=OpenAIChatCompletionsModel("gpt-test", client),
        model_settings=ModelSettings(max_tokens=100),
        tools=[look_up],
    )
    result = await OpenAIRunner(agent_id).run(agent, "Look it up.")
    await client.close()
    return str(result.final_output)
