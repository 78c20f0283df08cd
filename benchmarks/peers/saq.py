"""SAQ."""

from __future__ import annotations

from typing import Any

from redis import asyncio as redis
from saq import Job
from saq.queue.redis import RedisQueue

from benchmarks.peers import handlers
from benchmarks.peers.base import AsyncPeer, Purpose, fleet_slots, redis_url

queue = RedisQueue(redis.Redis.from_url(redis_url()), name="benchmark")


async def nothing(context: dict[str, Any], *, number: int) -> None:
    handlers.nothing(number)


async def wait(context: dict[str, Any], *, number: int, seconds: float) -> None:
    await handlers.async_wait(number, seconds)


# "Getting started": a settings dictionary; concurrency is 10 by default, too few for tasks that wait.
settings = {"queue": queue, "functions": [nothing, wait], "concurrency": fleet_slots()}
NAMES = ("number", "seconds")


class Peer(AsyncPeer):
    settings = {
        "calls": "concurrency 100, all else as by default",
        "waits": "concurrency as the slots",
        "kills": "retries=3 on the job (1, the default, forbids a second attempt); sweep each 60 s and timeout 10 s"
        " as by default",
    }

    async def connect(self) -> None:
        await queue.connect()

    async def send(self, task: str, argument: tuple[int | float, ...]) -> None:
        await queue.enqueue(Job(task, kwargs=dict(zip(NAMES, argument, strict=False)), retries=3))

    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        # One command per process instead of --workers, so that each can be restarted separately.
        return [["saq", "benchmarks.peers.saq.settings"]] * processes
