"""The example project as its visitors meet it: a real ASGI server and a real pool, with data of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import free_port

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds


class Example:
    """The example project in a separate folder, on a free port."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_urlsafe(12)
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._folder = folder
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OPENAI_", "AGENTEXEC_", "DJANGO_", "REDIS_URL", "DEBUG"))
        }
        self.environ = {
            **inherited,
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "DJANGO_SUPERUSER_PASSWORD": self.password,
            "DATA_DIR": str(folder),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def path_of_link(self) -> str:
        """Where the demo's user is signed in."""
        return f"/enter/{self.password}/"

    def manage(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end, and return what it prints."""
        done = subprocess.run(
            [sys.executable, str(MANAGE), *arguments], env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def prepare(self) -> None:
        """Make the database, the demo's user, and a price for its model."""
        self.manage("migrate", "-v0")
        self.manage("shell", "-c", "from example_project.documents.demo.work import set_offline_price as f; f()")
        self.manage("createsuperuser", "--noinput", "--username", "demo", "--email", "demo@example.com")

    def start_server(self) -> None:
        """Start the web server, and wait until it answers."""
        self._start("server", "runserver", "--noreload", f"{HOST}:{self.port}")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
                return
            except OSError:
                assert self._processes["server"].poll() is None, self.log("server")
                assert time.monotonic() < deadline, self.log("server")
                time.sleep(0.05)

    def start_pool(self) -> None:
        """Start the workers."""
        self._start("pool", "runagentworkers", "--workers", "1")

    def kill_server(self) -> None:
        """Kill the web server, and cut every connection with it."""
        self._processes["server"].kill()
        self._processes.pop("server").wait()

    def stop(self) -> None:
        """Stop what runs."""
        for _ in range(2):  # the second one cuts short what the agents are doing
            for process in self._processes.values():
                process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> str:
        """Return what a process has printed."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-u", str(MANAGE), *arguments], env=self.environ, stdout=log, stderr=log
            )


@contextmanager
def example() -> Iterator[Example]:
    """Run the example project inside the block."""
    folder = Path(tempfile.mkdtemp(prefix="agentexec-example-"))
    site = Example(folder)
    try:
        site.prepare()
        site.start_server()
        site.start_pool()
        yield site
    finally:
        site.stop()
        print(site.log("server")[-4_000:], site.log("pool")[-4_000:])
        shutil.rmtree(folder, ignore_errors=True)
