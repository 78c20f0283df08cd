"""RQ."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis
from rq import Queue, Retry
from rq.rate_limit import RateLimit

from benchmarks.peers import handlers
from benchmarks.peers.base import Arguments, BasePeer, Purpose, redis_url

TASKS = {"nothing": handlers.nothing, "wait": handlers.wait}
# "Results": a time of 0 discards them at once. "Exceptions and retries": without Retry a killed job counts as failed.
RESULT_TTL = 0
RETRY = Retry(max=3)


class Peer(BasePeer):
    settings = {
        "calls": "worker pool of SimpleWorkers (no fork per job), result_ttl=0; bulk by enqueue_many;"
        " a RateLimit of 1 per key",
        "kills": "forking workers with one job each, Retry(max=3); the processes of 4 jobs are killed",
    }
    has_bulk = True
    has_keys = True
    slots_are_processes = True

    def open(self) -> None:
        self.queue = Queue(connection=Redis.from_url(redis_url()))

    def enqueue(self, task: str, arguments: Arguments) -> None:
        for argument in arguments:
            self.queue.enqueue(TASKS[task], args=argument, result_ttl=RESULT_TTL, retry=RETRY)

    def enqueue_many(self, task: str, arguments: Arguments) -> None:
        prepare = Queue.prepare_data
        self.queue.enqueue_many(
            [prepare(TASKS[task], args=argument, result_ttl=RESULT_TTL, retry=RETRY) for argument in arguments]
        )

    def enqueue_keyed(self, pairs: Sequence[tuple[int, int]]) -> None:
        for number, key in pairs:
            self.queue.enqueue(
                handlers.nothing, number, result_ttl=RESULT_TTL, rate_limit=RateLimit(f"key:{key}", concurrency=1)
            )

    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        pool = ["rq", "worker-pool", "--url", redis_url(), "--quiet"]
        if purpose == "calls":
            return [[*pool, "--worker-class", "rq.worker.SimpleWorker", "--num-workers", str(processes)]]
        return [[*pool, "--num-workers", str(processes * slots)]]
