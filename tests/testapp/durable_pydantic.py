"""The durable runner of docs/frameworks.md with an agent of Pydantic AI, and kill points."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .kill_points import effect, reach

if TYPE_CHECKING:
    from openai import AsyncOpenAI

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


async def run_pydantic_agent(agent_id: UUID, client: AsyncOpenAI, folder: str) -> str:
    """Run an agent with one tool."""
    # Here, not above: the other tests' pools need not load the package.
    from pydantic_ai import Agent

    agent = Agent(_model(client, folder), name="boss")

    @agent.tool_plain
    async def look_up(item: str) -> str:
        """Work on an item."""
        reach(folder, f"look_up {item} before")
        await asyncio.to_thread(effect, folder, f"look_up {item}")
        reach(folder, f"look_up {item} after")
        return f"{item} is done"

    return str((await _runner_class(folder)(agent_id).run(agent, "Go.")).output)


def _model(client: AsyncOpenAI, folder: str) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class KillableModel(OpenAIChatModel):
        async def request(self, *args: Any, **kwargs: Any) -> Any:
            reach(folder, "boss request")
            response = await super().request(*args, **kwargs)
            reach(folder, "boss answered")
            return response

    return KillableModel("boss", provider=OpenAIProvider(openai_client=client))


def _runner_class(folder: str) -> Any:
    """Return the runner of the page, with kill points after the commits."""
    from tests.support.docs_code import execute

    page: Any = execute(PAGE)

    class Killable(page["Recorded"]):  # type: ignore[misc]  # defined by the page
        async def wrap_model_request(self, *args: Any, **kwargs: Any) -> Any:
            answer = await super().wrap_model_request(*args, **kwargs)
            reach(folder, "boss committed")
            return answer

        async def wrap_tool_execute(self, *args: Any, **kwargs: Any) -> Any:
            output = await super().wrap_tool_execute(*args, **kwargs)
            reach(folder, "look_up committed")
            return output

    page["Recorded"] = Killable
    return page["PydanticAIRunner"]
