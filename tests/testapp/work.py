"""The context of the process tests' tasks, and their report to the test."""

from __future__ import annotations

import os
import sqlite3
import time
from uuid import UUID

from pydantic import BaseModel


class Work(BaseModel):
    """What a handler of the process tests is to do, and where it reports it."""

    journal: str
    name: str = ""
    key: str = ""
    seconds: float = 0.0


def note(journal: str, event: str, name: str, agent_id: UUID) -> None:
    """Write down, outside of the system under test, that something happened."""
    with sqlite3.connect(journal, timeout=30) as connection:
        connection.execute(
            "INSERT INTO events (event, name, agent_id, pid, at) VALUES (?, ?, ?, ?, ?)",
            (event, name, str(agent_id), os.getpid(), time.time()),
        )
    connection.close()
