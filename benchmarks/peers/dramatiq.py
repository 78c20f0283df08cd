"""Dramatiq."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from redis import ConnectionPool, Redis

from benchmarks.peers import handlers
from benchmarks.peers.base import Arguments, BasePeer, Purpose, fleet_slots, redis_url

# Each thread acknowledges on a separate connection; a pool of redis-py 8 has 100 by default.
pool = ConnectionPool.from_url(redis_url(), max_connections=fleet_slots() + 20)
dramatiq.set_broker(RedisBroker(client=Redis(connection_pool=pool)))

nothing = dramatiq.actor(handlers.nothing, actor_name="nothing")
wait = dramatiq.actor(handlers.wait, actor_name="wait")
TASKS = {"nothing": nothing, "wait": wait}


class Peer(BasePeer):
    settings = {
        "calls": "8 threads per process, as by default, no result backend",
        "waits": "threads as the slots",
        "kills": "heartbeat_timeout 60 s and maintenance by chance, as by default",
    }

    def enqueue(self, task: str, arguments: Arguments) -> None:
        for argument in arguments:
            TASKS[task].send(*argument)

    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        # "Guide: workers": one process per core with 8 threads by default; more threads for tasks that wait.
        threads = 8 if purpose == "calls" else slots
        return [["dramatiq", "benchmarks.peers.dramatiq", "--processes", str(processes), "--threads", str(threads)]]
