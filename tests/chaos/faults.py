"""Faults, drawn from a seed: everything around a pool that can die, freeze or forget."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections import Counter

from redis.exceptions import RedisError

from django_agentexec.exceptions import QueueUnavailable
from django_agentexec.queues import get_queue
from tests.pools import PoolProcess
from tests.servers import Valkey

# Short lives and short leases: a minute holds what takes a month in production.
SETTINGS = {
    "LEASE": 3.0,
    "RECONCILE_INTERVAL": 2.0,
    "GRACE_PERIOD": 1.0,
    "MAX_CRASHES": 1_000,  # innocent activities die with their processes here, again and again
}
FROZEN_AT_MOST = 8.0  # seconds; some wake up within their lease, others long after it
FAULTS = {"kill": 12, "freeze": 6, "valkey": 3, "flush": 2, "pool": 3}


class Faults:
    """Two pools on one Valkey, and what happens to them. `happened` counts it."""

    def __init__(self, seed: int, valkey: Valkey) -> None:
        self.random = random.Random(seed)
        self.happened: Counter[str] = Counter()
        self.pools = [_start(), _start()]
        self._server = valkey
        self.frozen: set[int] = set()
        self._thaws: list[threading.Timer] = []

    def strike(self) -> None:
        """Let the next fault happen."""
        names = list(FAULTS)
        (name,) = self.random.choices(names, [FAULTS[name] for name in names])
        getattr(self, f"_{name}")()
        self.happened[name] += 1

    def end(self) -> None:
        """Wake up what is frozen, and stop the pools."""
        for thaw in self._thaws:
            thaw.join()
        for pool in self.pools:
            pool.stop()

    def _worker(self) -> int:
        started = re.findall(r"as process (\d+)", self.random.choice(self.pools).output)
        return int(self.random.choice(started[-3:])) if started else 0

    def _kill(self) -> None:
        _send(self._worker(), signal.SIGKILL)

    def _freeze(self) -> None:
        pid = self._worker()
        _send(pid, signal.SIGSTOP)
        self.frozen.add(pid)
        # By a thread, since the frozen process may hold the lock of SQLite that the producer waits for.
        thaw = threading.Timer(self.random.uniform(0, FROZEN_AT_MOST), _send, [pid, signal.SIGCONT])
        thaw.start()
        self._thaws.append(thaw)

    def _valkey(self) -> None:
        self._server.kill()
        self._server.start()

    def _flush(self) -> None:
        try:
            get_queue().client.flushall()  # type: ignore[attr-defined]
        except (RedisError, QueueUnavailable):
            self.happened["flush"] -= 1  # it had just been killed

    def _pool(self) -> None:
        number = self.random.randrange(len(self.pools))
        self.pools[number].send(self.random.choice([signal.SIGKILL, signal.SIGTERM]))
        self.pools[number].wait()
        self.pools[number] = _start()


def _start() -> PoolProcess:
    return PoolProcess("--workers", "2", "--concurrency", "20", **SETTINGS)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        if pid:
            os.kill(pid, number)
    except ProcessLookupError:
        pass
