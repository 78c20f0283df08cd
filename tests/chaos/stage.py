"""The stage of a chaos run: its servers, pools and producers, and the operations on each of them.

Each pool, and the producers together, reach the servers through proxies of their own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.chaos import clock
from tests.chaos.faults import Form
from tests.chaos.proxy import Network, Proxy
from tests.chaos.servers import postgresql
from tests.support.process_state import is_alive, state_of
from tests.support.servers import valkey_server

MARK = "CHAOS_RUN"  # an environment variable of every process of a run, which identifies leftover processes
WORKERS = 2  # processes of a pool
CONCURRENCY = 20
READY = " is ready: "  # in the log of a worker
MAX_RSS = 220  # MB: above the size of a worker, and soon reached by leaking tasks
LEASE = 3.0
SETTINGS = {
    "LEASE": LEASE,
    "RECONCILE_INTERVAL": 2.0,
    "GRACE_PERIOD": 2.0,
    "STUCK_TIMEOUT": 15.0,  # longer than any freeze
    "REDIS_TIMEOUT": 2.0,
}
BLOCK = 1.5 * LEASE
REAP_TIMEOUT = 5.0  # seconds in which a parent reaps an ended child
ENDING = 60.0  # seconds for the stop of a pool: grace period, shutdown, and a loaded machine


class Pool:
    """One `runagentworkers` process, which is started again whenever it has ended."""

    def __init__(self, stage: Stage, number: int, proxies: dict[str, Proxy]) -> None:
        self.number = number
        self.proxies = proxies
        self.codes: list[int] = []
        """Exit codes after SIGTERM."""
        self.shift = 0.0
        """Seconds by which its clock is wrong."""
        self.ended: list[int] = []
        """Exit codes without a signal."""
        self.lock = threading.Lock()
        """Held while the process is being replaced or signalled."""
        self._stage = stage
        self._outputs: list[Path] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, shift: float) -> None:
        self.shift = shift
        self._outputs.append(self._stage.folder / f"pool-{self.number}-{len(self._outputs)}.log")
        with self._outputs[-1].open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "django", "runagentworkers", "-v2", "--workers", str(WORKERS)),
                    *("--concurrency", str(CONCURRENCY), "--max-rss", str(MAX_RSS)),
                ],
                env=self.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def environment(self) -> dict[str, str]:
        """Return the environment of its process."""
        return {
            **self._stage.environment(self.proxies),
            "CHAOS_POOL": str(self.number),
            clock.VARIABLE: str(self.shift),
        }

    def workers(self) -> list[int]:
        """Return the process ids of its live workers, including workers of a killed predecessor."""
        found = {int(pid) for pid in re.findall(r"as process (\d+)", self.output())}
        return sorted(pid for pid in found if self._stage.is_ours(pid))

    def is_up(self) -> bool:
        """Return whether its current process has started a worker."""
        return "as process" in self._outputs[-1].read_text(errors="replace")

    def is_working(self) -> bool:
        """Return whether all workers of its current process claim activities."""
        return self._outputs[-1].read_text(errors="replace").count(READY) >= WORKERS

    def output(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self._outputs)

    def restart_if_ended(self) -> None:
        """Restart an ended pool, as a process manager does: a pool that cannot reach its servers at its start ends."""
        if self.lock.acquire(blocking=False):
            try:
                if self.process is not None and self.process.poll() is not None:
                    self.ended.append(self.process.returncode)
                    self.start(self.shift)
            finally:
                self.lock.release()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Drain it, and store its exit code; a pool that cannot reach its servers at its start ends without it."""
        assert self.process is not None
        self.process.terminate()
        try:
            code = self.process.wait(ENDING)
            (self.codes if self.is_up() or code < 0 else self.ended).append(code)
        except subprocess.TimeoutExpired:
            self.codes.append(-1)
            self.kill()


class Stage(ExitStack):
    """All servers, pools and producers of a run."""

    def __init__(self, form: Form, seed: int, folder: Path) -> None:
        super().__init__()
        self.form, self.seed, self.folder = form, seed, folder
        self.mark = f"{os.getpid()}-{time.time_ns()}"
        self.network = Network()
        self.callback(self.network.close)
        self.valkey = self.enter_context(valkey_server())
        self.valkey_lock = threading.Lock()
        self.postgresql = self.enter_context(postgresql()) if form.database == "postgresql" else None
        self.database_lock = threading.Lock()
        self._sqlite = folder / "chaos.sqlite3"
        self.pools = [Pool(self, number, self._proxies()) for number in range(form.pools)]
        self.outside = self._proxies()
        """The proxies of the producers."""
        self.producers: list[subprocess.Popen[bytes]] = []

    def _proxies(self) -> dict[str, Proxy]:
        proxies = {"valkey": self.network.proxy(self.valkey.socket)}
        if self.postgresql is not None:
            proxies["database"] = self.network.proxy(self.postgresql.socket)
        return proxies

    def places(self) -> list[dict[str, Proxy]]:
        """Return the proxies of each pool and of the producers."""
        return [*(pool.proxies for pool in self.pools), self.outside]

    def environment(self, proxies: dict[str, Proxy] | None) -> dict[str, str]:
        """Return the environment of a process that uses these proxies, or none."""
        redis = f"redis://127.0.0.1:{proxies['valkey'].port}/0" if proxies else self.valkey.url
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "AGENTEXEC_TEST_REDIS": redis,
            "AGENTEXEC_TEST_SQLITE": str(self._sqlite),
            "AGENTEXEC_TEST_DATABASE": json.dumps(self._database(proxies)),
            "AGENTEXEC_TEST_SETTINGS": json.dumps(SETTINGS),
            "CHAOS_BLOCK": str(BLOCK),
            MARK: self.mark,
        }

    def _database(self, proxies: dict[str, Proxy] | None) -> dict[str, Any] | None:
        if self.postgresql is None:
            return None
        past = (str(self.postgresql.folder), self.postgresql.port)
        host, port = ("127.0.0.1", proxies["database"].port) if proxies else past
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "HOST": host,
            "PORT": str(port),
            "OPTIONS": {"connect_timeout": 3},
        }

    def start(self) -> None:
        """Start producers and pools; with two pools, their clocks are wrong."""
        for pool, shift in zip(self.pools, (3600.0, -3600.0), strict=False):
            pool.start(shift)
        for number in range(self.form.producers):
            arguments = [str(part) for part in (number, self.seed, self.form.rate, self.form.specials)]
            with (self.folder / f"producer-{number}.log").open("wb") as output:
                self.producers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.chaos.producers", *arguments],
                        env=self.environment(self.outside),
                        stderr=output,
                    )
                )

    def is_up(self) -> bool:
        """Return whether every pool has started a worker."""
        return all(pool.is_up() for pool in self.pools)

    def is_working(self) -> bool:
        """Return whether every worker of every pool claims activities."""
        return all(pool.is_working() for pool in self.pools)

    def stop_producers(self) -> list[int]:
        """Stop the producers, and return their exit codes."""
        for producer in self.producers:
            producer.terminate()
        return [producer.wait(ENDING) for producer in self.producers]

    def stop_pools(self) -> None:
        """Drain all pools at once."""
        stops = [threading.Thread(target=pool.stop) for pool in self.pools]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()

    def workers(self) -> list[int]:
        """Return the process ids of all live workers, in order."""
        return sorted(pid for pool in self.pools for pid in pool.workers())

    def is_ours(self, pid: int) -> bool:
        """Return whether the process belongs to this run and lives."""
        try:
            is_marked = f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return is_marked and is_alive(pid)

    def left_over(self) -> list[str]:
        """Return all remaining processes of pools and producers."""
        return [f"process {pid}: {_command(pid)}" for pid in self._own_processes()]

    def zombies(self) -> list[str]:
        """Return ended processes that a live parent of this run has not reaped in time."""
        deadline, found = time.monotonic() + REAP_TIMEOUT, self._zombies()
        while found and time.monotonic() < deadline:
            time.sleep(0.2)
            found &= self._zombies()
        return [f"process {pid} is a zombie" for pid in sorted(found)]

    def kill_all(self) -> None:
        """Kill all remaining processes."""
        for pid in self._own_processes():
            send(pid, signal.SIGKILL)
        for process in [*self.producers, *(pool.process for pool in self.pools)]:
            if process is not None:
                process.wait(10)

    def _own_processes(self) -> list[int]:
        pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if pid != os.getpid() and self.is_ours(pid)]

    def _zombies(self) -> set[int]:
        ours, found = set(self._own_processes()), set()
        for folder in Path("/proc").glob("[0-9]*"):
            state, parent = state_of(int(folder.name))
            if state == "Z" and parent in ours:
                found.add(int(folder.name))
        return found


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; return False if the process does not exist."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "(gone)"
