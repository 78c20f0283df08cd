"""An observer outside of the system under test: handlers write down what they do, tests read it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tests.testapp.work import note


@dataclass(frozen=True)
class Event:
    """Something a handler did. `at` is in Unix seconds."""

    event: str
    name: str
    agent_id: str
    pid: int
    at: float


class Journal:
    """The handlers' events, in a separate SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "journal.sqlite3")
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE events (event TEXT, name TEXT, agent_id TEXT, pid INTEGER, at REAL)")
        connection.commit()
        connection.close()

    def events(self, event: str | None = None) -> list[Event]:
        """Return what happened, in order."""
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            rows = connection.execute("SELECT event, name, agent_id, pid, at FROM events ORDER BY at, rowid")
            return [found for row in rows if (found := Event(*row)).event == event or event is None]
        finally:
            connection.close()

    def note(self, event: str, name: str) -> None:
        """Write down what the test itself has done."""
        note(self.path, event, name, UUID(int=0))

    def names(self, event: str) -> list[str]:
        """Return the names of one kind of event, in order."""
        return [found.name for found in self.events(event)]

    def pid_of(self, name: str) -> int:
        """Return the process that started `name` last, or 0."""
        return next((found.pid for found in reversed(self.events("start")) if found.name == name), 0)
