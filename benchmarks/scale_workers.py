"""Many workers in one process, without rows and handlers; claimers, heartbeats and connections are real."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

QUEUE = "default"
PAUSE = 0.5  # seconds between two ends of each worker
FREE_SLOTS = 10


def run_workers(number: int, count: int, claims: int, pipe: Connection) -> None:
    """Run `count` workers; on receiving a time (monotonic), send their observations since then, and end."""
    import django

    django.setup()
    logging.getLogger("django_agentexec").setLevel(logging.ERROR)
    workers = [_Worker(f"w{number}-{n}", claims) for n in range(count)]
    for worker in workers:
        worker.start()
    threading.Thread(target=_end_and_claim, args=[workers], daemon=True).start()
    continued = pipe.recv()
    firsts = [min((at for at in worker.beats if at > continued), default=None) for worker in workers]
    pipe.send(
        {
            "first_beats": [first for first in firsts if first is not None],
            "releases": sum(worker.releases for worker in workers),
            "lost": sum(worker.lost for worker in workers),
            "crashes": sum(worker.crashes for worker in workers),
            "expired_leases": sum(worker.expired_leases for worker in workers),
        }
    )


class _Worker:
    """The part of a worker process that uses the queue."""

    def __init__(self, name: str, claims: int) -> None:
        from django_agentexec.queues import Claim, WorkerInfo
        from django_agentexec.queues.redis import RedisQueue
        from django_agentexec.worker.claimer import Claimer
        from django_agentexec.worker.heartbeat import Heartbeat

        self.beats: list[float] = []
        self._ended: set[UUID] = set()
        self.releases = self.lost = self.crashes = self.expired_leases = 0
        queue = RedisQueue()
        queue.heartbeat = self._noting(queue.heartbeat, lambda: self.beats.append(time.monotonic()))  # type: ignore[method-assign]
        queue.release_worker = self._noting(queue.release_worker, self._released)  # type: ignore[method-assign]

        def on_claim(claim: Claim) -> None:
            self._ended.discard(claim.agent_id)
            self.crashes += claim.crashes
            self.expired_leases += claim.expired_leases
            if len(self.claimer.held) >= claims:
                self.claimer._capacity = claims + FREE_SLOTS  # from here on it has free slots and polls

        self.claimer = Claimer(queue, [QUEUE], name, claims, on_claim=on_claim, on_end=lambda: None)
        info = WorkerInfo(name, "benchmark", 0, [QUEUE], claims, False, time.time())
        self._lease = Heartbeat(
            queue,
            info,
            self.claimer.held,
            self.claimer.release_lock,
            on_lost=self._lost,
            on_canceled=lambda ids: None,
            on_beat=lambda: None,
        )

    def start(self) -> None:
        self.claimer.start()
        self._lease.start()

    def end_one(self) -> None:
        """Return an activity to the queue, from which any worker may claim it."""
        from django_agentexec.queues import Outcome

        held: Sequence[Any] = list(self.claimer.held.values())
        waiting = {ack.claim.agent_id for ack in list(self.claimer._acks)}
        for each in held:
            if each.claim.agent_id not in waiting:
                self._ended.add(each.claim.agent_id)
                self.claimer.ack(each.claim, Outcome.RETRY)
                return

    def _lost(self, agent_ids: Iterable[UUID]) -> None:
        # If the reply to an acknowledgment was lost, its claim is reported as lost, which does not count.
        self.lost += len(set(agent_ids) - self._ended)

    def _released(self) -> None:
        self.releases += 1

    @staticmethod
    def _noting(verb: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            answer = verb(*arguments, **options)
            note()
            return answer

        return call


def _end_and_claim(workers: Sequence[_Worker]) -> None:
    while True:
        for worker in workers:
            worker.end_one()
            time.sleep(PAUSE / len(workers))
