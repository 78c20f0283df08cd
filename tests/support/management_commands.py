"""Helpers that run commands in this process, in another process, and on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.core.management import CommandError, ManagementUtility, call_command

from tests.support.pool_process import PATIENCE, environment


@dataclass
class Answer:
    code: int
    out: str
    err: str


def call(*arguments: str) -> Answer:
    """Run a command in this process."""
    out, err = StringIO(), StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=err)
    except CommandError as error:
        return Answer(error.returncode, out.getvalue(), f"{err.getvalue()}{error}")
    except SystemExit as end:
        return Answer(int(end.code or 0), out.getvalue(), err.getvalue())
    return Answer(0, out.getvalue(), err.getvalue())


def execute(*arguments: str) -> Answer:
    """Run a command in this process as `manage.py` does: with its messages, and its exit code."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            ManagementUtility(["manage.py", *arguments]).execute()
        except SystemExit as end:
            return Answer(int(end.code or 0), out.getvalue(), err.getvalue())
    return Answer(0, out.getvalue(), err.getvalue())


def run(*arguments: str, stdin: str = "", environ: dict[str, str] | None = None, **settings: Any) -> Answer:
    """Run a command in another process."""
    done = subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**environment(**settings), **(environ or {})},
        timeout=PATIENCE,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, master: int, process: subprocess.Popen[bytes], before: list[Any]) -> None:
        self._master, self._process, self._before = master, process, before
        self.output = ""

    def read_until(self, text: str, timeout: float = PATIENCE) -> None:
        """Read what it writes until `text` has come, from now on."""
        deadline, start = time.monotonic() + timeout, len(self.output)
        while text not in self.output[start:]:
            assert time.monotonic() < deadline, f"{text!r} did not come:\n{self.output}"
            self._read()

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process.send_signal(signal.SIGWINCH)

    def wait(self) -> int:
        """Return the exit code, reading what is left."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.output
            self._read()
        while self._read():
            pass
        return self._process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether echo, line mode and the rest are as they were."""
        return termios.tcgetattr(self._master) == self._before

    def _read(self) -> bool:
        os.set_blocking(self._master, False)
        try:
            content = os.read(self._master, 65536)
        except BlockingIOError:
            time.sleep(0.01)
            return False
        except OSError:  # closed at the other end
            return False
        self.output += content.decode(errors="replace")
        return bool(content)


@contextmanager
def on_terminal(
    *arguments: str, columns: int = 100, rows: int = 30, module: bool = True, **settings: Any
) -> Iterator[Terminal]:
    """Run a command (or, without `module`, Python) on a pseudo-terminal; kill it at the end if it still runs."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    before = termios.tcgetattr(master)
    environ = {**environment(**settings), "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environ.pop(name, None)
    command = [sys.executable, *(["-m", "django"] if module else []), *arguments]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True)
    try:
        yield Terminal(master, process, before)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
        os.close(slave)
