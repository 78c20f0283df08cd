"""arq."""

from __future__ import annotations

from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers import handlers
from benchmarks.peers.base import AsyncPeer, Purpose, fleet_slots, redis_url

REDIS = RedisSettings.from_dsn(redis_url())


async def nothing(context: dict[str, Any], number: int) -> None:
    handlers.nothing(number)


async def wait(context: dict[str, Any], number: int, seconds: float) -> None:
    await handlers.async_wait(number, seconds)


class WorkerSettings:
    functions = [nothing, wait]
    redis_settings = REDIS
    max_jobs = fleet_slots()
    keep_result = 0  # otherwise each end writes an unused result
    poll_delay = 0.05  # 0.5 by default: a tenth of its latency, and ten times its idle commands
    log_results = False


class Peer(AsyncPeer):
    settings = {
        "calls": "max_jobs 100, keep_result 0, poll_delay 0.05 s (0.5 by default)",
        "waits": "max_jobs as the slots, else the same",
        "kills": "job_timeout 300 s as by default; the job is repeated when that has passed",
    }

    async def connect(self) -> None:
        self.pool = await create_pool(REDIS)

    async def send(self, task: str, argument: tuple[int | float, ...]) -> None:
        await self.pool.enqueue_job(task, *argument)

    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        return [["arq", "benchmarks.peers.arq.WorkerSettings"]] * processes
