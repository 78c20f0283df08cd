"""Effects of handlers outside of the system: lines in a file, which a handler appends before it returns."""

from __future__ import annotations

import os

EFFECTS = "CHAOS_EFFECTS"
"""The environment variable with the path of the file. Without it handlers have no effects."""


def append_effect(agent_id: str, fence: int, name: str) -> None:
    """Append a line in one write, which a kill of the process cannot split."""
    if path := os.environ.get(EFFECTS):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{agent_id} {fence} {name}\n".encode())
        finally:
            os.close(descriptor)
