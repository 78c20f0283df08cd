"""Calls of tools of an MCP server over streamable HTTP are recorded and replayed, as those of a local process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from uuid import UUID

import pytest
import uvicorn
from agents import Agent
from agents.mcp import MCPServerStreamableHttp

from django_agentexec import OpenAIRunner
from django_agentexec.models import AgentCall, CallKind, CallState, Status
from tests.support.durable_agents import DONE, Empty, fail_once, run
from tests.support.scripted_models import call, model, say

try:
    from mcp.server.mcpserver import MCPServer
except ImportError:  # version 1
    from mcp.server.fastmcp import FastMCP as MCPServer  # type: ignore[no-redef]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


@pytest.fixture
def url() -> Iterator[str]:
    """Serve a tool with a side effect on the loopback interface."""
    notes = MCPServer("notes")

    @notes.tool()
    def take_note(text: str) -> str:
        """Take a note."""
        DONE[text] += 1
        return f"noted {text}"

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # clients may connect before the server accepts
    server = uvicorn.Server(uvicorn.Config(notes.streamable_http_app(), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    server.should_exit = True
    thread.join()
    listener.close()


def test_a_later_attempt_replays_a_call_over_http(url: str) -> None:
    scripted = model([call("take_note", "1", text="milk")], say("Noted."))

    async def handler(agent_id: UUID, context: Empty) -> str:
        async with MCPServerStreamableHttp({"url": url}) as notes:
            agent = Agent("Clerk", model=scripted, mcp_servers=[notes])
            result = await OpenAIRunner(agent_id).run(agent, "Remember the milk.")
        fail_once()
        return str(result.final_output)

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Noted.", 2), row.error
    assert (DONE["milk"], len(scripted.calls)) == (1, 2)
    tool = AgentCall.objects.get(kind=CallKind.TOOL)
    assert (tool.name, tool.state, "noted milk" in str(tool.output)) == ("take_note", CallState.DONE, True)
