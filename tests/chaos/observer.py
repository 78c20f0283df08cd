"""The observer: a separate process that records the reports of handlers and producers.

It stands outside of the system under test: own process, own store, own socket, and CLOCK_MONOTONIC, which all
processes of a machine share and nobody shifts. What is said is in the kernel's hands at once, so a handler waits
for microseconds, and a process that is killed has said what it said. The end of its connection shows when it died.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "CHAOS_OBSERVER"
COMMIT_INTERVAL = 0.1  # seconds
COLUMNS = ("at", "kind", "name", "agent_id", "pid", "pool", "fence", "detail")


@dataclass(frozen=True, slots=True)
class Event:
    """A reported event. `at` is in seconds of CLOCK_MONOTONIC."""

    at: float
    kind: str
    name: str = ""
    agent_id: str = ""
    pid: int = 0
    pool: int = -1
    fence: int = 0
    detail: str = ""


class _Line:
    """The connection of this process to the observer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._pid = 0

    def say(self, text: str) -> None:
        with self._lock:
            if self._socket is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(os.environ[VARIABLE])
            self._socket.sendall(text.encode() + b"\n")


_line = _Line()
os.register_at_fork(after_in_child=lambda: _line.__init__())  # type: ignore[misc]


def report(kind: str, **fields: Any) -> None:
    """Report an event of this process, which happens now, to the observer."""
    fields.setdefault("at", time.monotonic())
    fields.setdefault("pid", os.getpid())
    fields.setdefault("pool", int(os.environ.get("CHAOS_POOL", "-1")))
    _line.say(json.dumps({"kind": kind, **fields}))


class Observer:
    """The handle of the driver on the observer, and the reader of its store."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "observer.sock"
        self._store = folder / "observer.sqlite3"
        self._process = subprocess.Popen([sys.executable, "-m", "tests.chaos.observer", self.socket, self._store])
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("The observer has not started.")
            time.sleep(0.02)
        os.environ[VARIABLE] = str(self.socket)

    def counts(self) -> Counter[str]:
        """Return the number of events so far, by kind."""
        with sqlite3.connect(self._store, timeout=30) as connection:
            return Counter(dict(connection.execute("SELECT kind, COUNT(*) FROM events GROUP BY kind")))

    def events(self) -> list[Event]:
        """Return all events, ordered by time."""
        with sqlite3.connect(self._store, timeout=30) as connection:
            rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY at, rowid")
            return [Event(*row) for row in rows]

    def stop(self) -> None:
        """End the process after all received events are written."""
        self._process.terminate()
        self._process.wait(20)


class _Server:
    """The server in the observer's process."""

    def __init__(self, path: str, store: str) -> None:
        self._connection = sqlite3.connect(store)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.execute(
            "CREATE TABLE events (at REAL, kind TEXT, name TEXT, agent_id TEXT, pid INT, pool INT, fence INT, "
            "detail TEXT)"
        )
        self._connection.execute("CREATE INDEX kinds ON events (kind)")
        self._connection.commit()
        self._selector = selectors.DefaultSelector()
        self._speakers: dict[socket.socket, tuple[bytes, int, int]] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1_000)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def run(self, stopping: threading.Event) -> None:
        committed = time.monotonic()
        while not (stopping.is_set() and not self._selector.select(0)):
            for key, _ in self._selector.select(COMMIT_INTERVAL):
                if key.fileobj is self._listener:
                    speaker, _ = self._listener.accept()
                    self._speakers[speaker] = (b"", 0, -1)
                    self._selector.register(speaker, selectors.EVENT_READ)
                else:
                    self._receive(key.fileobj)  # type: ignore[arg-type]
            if time.monotonic() - committed > COMMIT_INTERVAL:
                self._connection.commit()
                committed = time.monotonic()
        self._connection.commit()
        self._connection.close()

    def _receive(self, speaker: socket.socket) -> None:
        begun, pid, pool = self._speakers[speaker]
        try:
            data = speaker.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._write({"kind": "gone", "at": time.monotonic(), "pid": pid, "pool": pool})
            self._selector.unregister(speaker)
            del self._speakers[speaker]
            speaker.close()
            return
        *lines, rest = (begun + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            pid, pool = said["pid"], said["pool"]
            self._write(said)
        self._speakers[speaker] = (rest, pid, pool)

    def _write(self, said: dict[str, Any]) -> None:
        default = {"name": "", "agent_id": "", "fence": 0, "detail": ""}
        self._connection.execute(
            f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES ({', '.join(':' + name for name in COLUMNS)})",
            {**default, **said},
        )


def main() -> None:
    """Run the observer until SIGTERM."""
    import signal

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Server(sys.argv[1], sys.argv[2]).run(stopping)


if __name__ == "__main__":
    main()
