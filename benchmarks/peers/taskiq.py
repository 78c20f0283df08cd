"""Taskiq, with the brokers of taskiq-redis."""

from __future__ import annotations

from typing import Any

from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.peers import handlers
from benchmarks.peers.base import AsyncPeer, Purpose, fleet_purpose, fleet_slots, redis_url

# The README of taskiq-redis: only the broker on streams acknowledges; the broker on lists is faster.
broker = (RedisStreamBroker if fleet_purpose() == "kills" else ListQueueBroker)(
    redis_url(),
    max_connection_pool_size=fleet_slots() + 20,  # one connection per task that acknowledges at the same time
)


@broker.task(task_name="nothing")
async def nothing(number: int) -> None:
    handlers.nothing(number)


@broker.task(task_name="wait")
async def wait(number: int, seconds: float) -> None:
    await handlers.async_wait(number, seconds)


TASKS: dict[str, Any] = {"nothing": nothing, "wait": wait}


class Peer(AsyncPeer):
    settings = {
        "calls": "ListQueueBroker, --max-async-tasks 100, no result backend",
        "waits": "ListQueueBroker, --max-async-tasks as the slots",
        "kills": "RedisStreamBroker, whose idle_timeout is 10 minutes by default",
    }

    async def connect(self) -> None:
        await broker.startup()

    async def send(self, task: str, argument: tuple[int | float, ...]) -> None:
        await TASKS[task].kiq(*argument)

    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        worker = ["taskiq", "worker", "benchmarks.peers.taskiq:broker", "--log-level", "ERROR"]
        return [[*worker, "--workers", str(processes), "--max-async-tasks", str(slots)]]
