"""An MCP server over stdio whose only tool has a side effect: `python notes_server.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    from mcp.server.mcpserver import MCPServer
except ImportError:  # version 1
    from mcp.server.fastmcp import FastMCP as MCPServer  # type: ignore[no-redef]

server = MCPServer("notes")


@server.tool()
def take_note(text: str) -> str:
    """Take a note."""
    with open(Path(sys.argv[1], "effects"), "a") as file:
        file.write(f"note {text}\n")
    return f"noted {text}"


if __name__ == "__main__":
    server.run("stdio")
