"""The demo's child processes: the web server and the pool, each with a log file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MANAGE = Path(__file__).parents[3] / "manage.py"
HOST = "127.0.0.1"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
PORTS_TO_TRY = 20
LOG_TAIL_LINES = 15


class ChildDied(Exception):
    """A child process ended by itself; the message has the end of its log."""


class Child:
    """A `manage.py` command that runs beside the demo until `stop`."""

    def __init__(self, name: str, arguments: list[str], log_dir: Path) -> None:
        self.name = name
        self.log_path = log_dir / f"demo-{name}.log"
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(MANAGE), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Not in the terminal's foreground group: Ctrl-C interrupts the demo, which then stops its
                # children one after the other.
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `ChildDied` if the process has ended."""
        if (code := self.process.poll()) is not None:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join(lines[-LOG_TAIL_LINES:])
            raise ChildDied(f"The {self.name} ended with code {code}. The end of {self.log_path}:\n{tail}")

    def stop(self) -> None:
        """Terminate the process, wait, and kill it if it does not end."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_for_port(port: int, child: Child) -> None:
    """Return when `port` accepts connections; raises `ChildDied` or `TimeoutError`."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        child.check()
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"The {child.name} does not accept connections on port {port}; see {child.log_path}.")


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(first: int) -> int | None:
    """Return the first free port from `first` on, or None if there is none among the next twenty."""
    return next((port for port in range(first, first + PORTS_TO_TRY) if is_free(port)), None)
