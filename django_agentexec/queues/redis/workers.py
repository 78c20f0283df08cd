"""Registered workers on Redis: a hash with one entry per worker process, dated by the server's clock."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from redis import Redis
from redis.exceptions import NoScriptError

from ..board import WORKER_TTL, WorkerInfo, WorkersReading, read_entry
from .connection import reachable

SWEEP_INTERVAL = 60.0  # seconds between two deletions of old entries, by one process


class RedisWorkers:
    """Worker entries in the key `<prefix>:workers`; `leads` returns whether this process deletes old entries now."""

    def __init__(self, client: Callable[[], Redis], prefix: str, leads: Callable[[str, float], bool]) -> None:
        self._client = client
        self._key = f"{prefix}:workers"
        self._leads = leads
        self._next_sweep = time.monotonic() + random.uniform(0, SWEEP_INTERVAL)

    def register_worker(self, worker: WorkerInfo) -> None:
        """Store a heartbeat; once a minute also delete entries without recent heartbeats."""
        fields = worker.as_dict()
        del fields["last_beat"]
        before, after = json.dumps(fields)[:-1] + ', "last_beat": ', "}"
        sweeps = time.monotonic() >= self._next_sweep
        if sweeps:
            self._next_sweep = time.monotonic() + SWEEP_INTERVAL
            sweeps = self._leads(worker.id, SWEEP_INTERVAL)
        arguments = (
            1,
            self._key,
            worker.id,
            before,
            after,
            worker.silence(time.time()),
            WORKER_TTL if sweeps else "",
        )
        sha, text = _script()
        with reachable():
            try:
                self._client().evalsha(sha, *arguments)
            except NoScriptError:
                self._client().eval(text, *arguments)

    def deregister_worker(self, worker_id: str) -> None:
        """Delete a worker's entry."""
        with reachable():
            self._client().hdel(self._key, worker_id)

    def read(self) -> WorkersReading:
        """Return the workers with a recent heartbeat. Deletes nothing."""
        with reachable():
            pipe = self._client().pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(self._key)
            found: tuple[tuple[int, int], dict[bytes, bytes]] = pipe.execute()  # type: ignore[assignment]
        (seconds, microseconds), entries = found
        now = seconds + microseconds / 1e6
        workers = {name: read_entry(text) for name, text in entries.items()}
        return WorkersReading(
            (worker for worker in workers.values() if worker and worker.last_beat >= now - WORKER_TTL),
            unreadable=[name.decode(errors="replace") for name, worker in workers.items() if worker is None],
            now=now,
        )

    def clear(self) -> None:
        """Delete all entries."""
        with reachable():
            self._client().delete(self._key)


@cache
def _script() -> tuple[str, str]:
    text = (Path(__file__).parent / "lua" / "register_worker.lua").read_text()
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text
