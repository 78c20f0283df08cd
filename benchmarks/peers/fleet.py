"""The worker processes of a peer: started, restarted when they die, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.base import PURPOSE_VARIABLE, SLOTS_VARIABLE, BasePeer, Purpose
from benchmarks.peers.tally import Tally

GRACE = 8.0  # seconds for the regular end of a fleet


class Fleet:
    """The running commands of a peer; ended commands are started again, as by a service manager."""

    def __init__(self, commands: list[list[str]], environment: dict[str, str]) -> None:
        self._commands = [_from_this_environment(command) for command in commands]
        self._environment = environment
        self.running = [self._start(command) for command in self._commands]

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=None if "BENCHMARK_VERBOSE" in os.environ else subprocess.DEVNULL,
            start_new_session=True,
        )

    def restart(self) -> None:
        """Start ended commands again."""
        for place, process in enumerate(self.running):
            if process.poll() is not None:
                self.running[place] = self._start(self._commands[place])

    def processes(self) -> list[int]:
        """Return the process ids of the commands and their descendants."""
        return [pid for process in self.running for pid in descendants(process.pid)]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Suspend all processes."""
        for process in self.running:
            os.killpg(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self.running:
                os.killpg(process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Terminate all processes, and kill those that do not end."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for process in self.running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            finally:
                _kill_group(process.pid)
                process.wait()


@contextmanager
def fleet(peer: BasePeer, purpose: Purpose, processes: int = 2, slots: int = 100) -> Iterator[Fleet]:
    """Run a fleet, without waiting until it is ready (see `until_ready`)."""
    environment = {**os.environ, PURPOSE_VARIABLE: purpose, SLOTS_VARIABLE: str(slots)}
    running = Fleet(peer.commands(purpose, processes, slots), environment)
    try:
        yield running
    finally:
        running.end()


def until_ready(peer: BasePeer, tally: Tally, processes: int) -> None:
    """Enqueue small tasks until this number of processes has run some, and wait until all have ended."""
    sent = 0
    deadline = time.monotonic() + 60
    while len({record.pid for record in tally.records()}) < processes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(tally)} small tasks ran, but not in {processes} processes.")
        if len(tally) >= sent * 2:
            peer.enqueue("wait", [(-1, 0.02)] * 4 * processes)
            sent += 4 * processes
        time.sleep(0.05)
    until(lambda: len(tally) >= sent * 2)
    tally.clear()


def until(condition: Callable[[], Any], timeout: float = 60.0) -> bool:
    """Wait for a condition; return whether it became true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid] + [found for child in children for found in descendants(int(child))]


def parent(pid: int) -> int:
    """Return the parent's process id."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def proportional_size(pid: int) -> int:
    """Return the proportional set size of a process in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _from_this_environment(command: list[str]) -> list[str]:
    return [str(Path(sys.executable).parent / command[0]), *command[1:]]


def _kill_group(leader: int) -> None:
    """Kill the process group of a command."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
