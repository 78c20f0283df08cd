"""Huey."""

from __future__ import annotations

from huey import RedisHuey
from redis import ConnectionPool

from benchmarks.peers import handlers
from benchmarks.peers.base import Arguments, BasePeer, Purpose, fleet_slots, redis_url

# Each worker blocks on a separate connection; a pool of redis-py 8 has 100 by default.
pool = ConnectionPool.from_url(redis_url(), max_connections=fleet_slots() + 20)
huey = RedisHuey("benchmark", connection_pool=pool, results=False)

nothing = huey.task(name="nothing")(handlers.nothing)
wait = huey.task(name="wait")(handlers.wait)
TASKS = {"nothing": nothing, "wait": wait}


class Peer(BasePeer):
    settings = {
        "calls": "2 consumers with 4 threads, results off",
        "waits": "2 consumers with a greenlet per slot, results off",
        "kills": "threads; it has no acknowledgment",
    }

    def enqueue(self, task: str, arguments: Arguments) -> None:
        for argument in arguments:
            TASKS[task](*argument)

    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        arguments = ["benchmarks.peers.huey.huey", "--quiet"]
        if purpose == "waits":
            # "Using gevent": patch everything before other imports, which huey_consumer does not do.
            patched = ["python", "-m", "gevent.monkey", "--module", "huey.bin.huey_consumer"]
            return [[*patched, *arguments, "-w", str(slots), "-k", "greenlet"]] * processes
        workers = 4 if purpose == "calls" else slots
        return [["huey_consumer", *arguments, "-w", str(workers), "-k", "thread"]] * processes
