"""Real pools for tests: `manage.py runagentworkers` in a separate process, on the suite's servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.db import connection

PATIENCE = 60.0  # seconds until a test that waits for another process gives up


def environment(**settings: Any) -> dict[str, str]:
    """Return the environment in which a new process uses the suite's servers and test database."""
    database = {key: connection.settings_dict[key] for key in ("ENGINE", "NAME", "USER", "HOST", "PORT", "OPTIONS")}
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "AGENTEXEC_TEST_DATABASE": json.dumps({key: value for key, value in database.items() if value}),
        "AGENTEXEC_TEST_SETTINGS": json.dumps(settings),
    }


class PoolProcess:
    """A pool as its operator sees it: a process with output, signals and an exit code."""

    def __init__(self, *arguments: str, variables: Mapping[str, str] = MappingProxyType({}), **settings: Any) -> None:
        # Not into a pipe, which would fill up and block the pool.
        descriptor, self._output = tempfile.mkstemp(prefix="agentexec-pool-")
        weakref.finalize(self, os.unlink, self._output)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "django", "runagentworkers", "-v2", *arguments],
            env={**environment(**settings), **variables},
            stdout=descriptor,
            stderr=subprocess.STDOUT,
        )
        os.close(descriptor)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return Path(self._output).read_text()

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end, and return the exit code."""
        return self._process.wait(timeout)

    def stop(self) -> int:
        """Drain it, and return the exit code."""
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"The pool did not end:\n{self.output}") from None


@contextmanager
def pool(
    *arguments: str, variables: Mapping[str, str] = MappingProxyType({}), **settings: Any
) -> Iterator[PoolProcess]:
    """Run a pool inside the block; print its output afterwards, for the report of a failed test.

    `variables` are further variables of its environment.
    """
    process = PoolProcess(*arguments, variables=variables, **settings)
    try:
        yield process
    finally:
        try:
            process.stop()
        finally:
            print(process.output)


def run_burst(*arguments: str, **settings: Any) -> PoolProcess:
    """Run a pool until the queues are empty."""
    process = PoolProcess("--burst", *arguments, **settings)
    code = process.wait()
    assert code == 0, process.output
    return process


def refused(*arguments: str) -> str:
    """Start a pool with arguments that it does not take, and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "runagentworkers", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode in (1, 2)
    return done.stderr


def until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Return the first true value of `condition`; for events of other processes."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {timeout:g} s: {what}")
        time.sleep(0.02)
    return value
