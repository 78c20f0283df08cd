"""Celery."""

from __future__ import annotations

from celery import Celery

from benchmarks.peers import handlers
from benchmarks.peers.base import Arguments, BasePeer, Purpose, fleet_purpose, redis_url

BROKER = redis_url().replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")

app = Celery("benchmark", broker=BROKER)
app.conf.update(
    task_ignore_result=True,  # "Tips and best practices: ignore results you don't want"
    # "Optimizing, prefetch limits": one task ahead where tasks are long, 50 to 150 where they are short.
    worker_prefetch_multiplier=64 if fleet_purpose() == "calls" else 1,
    # "Optimizing, reserve one task at a time", and "Tasks, reject on worker lost": to survive a kill.
    task_acks_late=fleet_purpose() == "kills",
    task_reject_on_worker_lost=fleet_purpose() == "kills",
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)

nothing = app.task(name="nothing")(handlers.nothing)
wait = app.task(name="wait")(handlers.wait)
TASKS = {"nothing": nothing, "wait": wait}


class Peer(BasePeer):
    settings = {
        "calls": "prefork pool, prefetch multiplier 64, results ignored",
        "waits": "gevent pool, prefetch multiplier 1, results ignored",
        "kills": "prefork pool, acks_late, reject_on_worker_lost; the 4 child processes of one worker are killed",
    }

    def enqueue(self, task: str, arguments: Arguments) -> None:
        delay = TASKS[task].delay
        for argument in arguments:
            delay(*argument)

    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        worker = ["celery", "-A", "benchmarks.peers.celery", "worker", "--loglevel", "ERROR"]
        if purpose == "calls":
            return [[*worker, "--pool", "prefork", "--concurrency", str(processes)]]
        pool = "gevent" if purpose == "waits" else "prefork"
        return [
            [*worker, "--pool", pool, "--concurrency", str(slots), "--hostname", f"worker{number}@%h"]
            for number in range(processes)
        ]
