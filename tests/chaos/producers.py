"""A producer: a process that enqueues in every possible way, and reports the results to the observer.

`python -m tests.chaos.producers NUMBER SEED RATE SPECIALS`: RATE activities per second, of which one in SPECIALS is
poison. Before each call it reports the names that it is about to make ("offers"), afterwards what came of them:
"enqueued", "undone" (it rolled them back), or "unknown" (the call failed, so they may exist or not). A key belongs to
one producer, which numbers its activities in the order in which it enqueues them.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from django_agentexec.tasks import AnyTask

KEYS = 15  # lock keys of one producer
KEPT = 50  # activities that it may still cancel
PAUSE_AFTER_ERROR = 0.2  # seconds
MAX_BULK = 40
PAUSES = (0.0, 0.05, 0.3, 2.0)  # seconds of a handler's pauses; long pauses overlap faults
FREQUENCY = (6, 6, 6, 1)
LEAK = 150  # MB: one leak exceeds the limit at which a worker is replaced


class Undo(Exception):
    """An exception that rolls a transaction back."""


class Producer:
    """A sequence of enqueues, drawn from a seed."""

    def __init__(self, number: int, seed: int, specials: int) -> None:
        from tests.chaos import agents

        self.number = number
        self.random = random.Random(f"{seed}-{number}")
        self.made = 0
        self.sequences = [0] * KEYS
        self.recent: deque[str] = deque(maxlen=KEPT)
        self.agents = agents
        self.tasks: dict[str, AnyTask] = {
            name: getattr(agents, name)
            for name in (
                *("plain", "keyed", "keyed_sync", "keyed_flaky", "flaky", "failing"),
                *("poison", "exits", "blocking", "leaking"),
            )
        }
        s = specials
        self.ways: list[tuple[int, Callable[[], None]]] = [
            (30 * s, lambda: self.one("plain")),
            (30 * s, lambda: self.one(self.random.choice(["keyed", "keyed", "keyed_sync", "keyed_flaky"]))),
            (10 * s, lambda: self.one("plain", delay=self.random.uniform(0.1, 3.0))),
            (6 * s, lambda: self.one("flaky", chance=0.4)),
            (2 * s, lambda: self.one("failing")),
            (s, lambda: self.bulk("plain")),
            (s, lambda: self.bulk("keyed")),
            (6 * s, self.rolled_back),
            (6 * s, self.committed),
            (4 * s, self.cancel),
            (100, lambda: self.one("poison")),
            (100, lambda: self.one("exits", chance=0.5)),
            (60, lambda: self.one("blocking", seconds=float(os.environ["CHAOS_BLOCK"]))),
            (300, lambda: self.one("leaking", megabytes=LEAK)),
        ]

    def step(self) -> None:
        """Perform the next action."""
        weights, ways = zip(*self.ways, strict=True)
        (way,) = self.random.choices(ways, weights)
        way()

    def job(self, task: str, **values: object) -> object:
        """Return the context of a new activity, whose name contains its position within its key."""
        self.made += 1
        key = ""
        name = f"p{self.number}-{self.made:06}"
        if task.startswith("keyed"):
            line = self.random.randrange(KEYS)
            self.sequences[line] += 1
            key = f"p{self.number}k{line}"
            name = f"{key}-{self.sequences[line]:06}"
            values.setdefault("chance", 0.3)
        (longest,) = self.random.choices(PAUSES, FREQUENCY)
        values.setdefault("seconds", self.random.uniform(0, longest))
        return self.agents.Job(name=name, key=key, **values)

    def one(self, task: str, *, delay: float | None = None, **values: object) -> None:
        self.call([job := self.job(task, **values)], lambda: [self.tasks[task].enqueue(job, delay=delay)])

    def bulk(self, task: str) -> None:
        jobs = [self.job(task) for _ in range(self.random.randrange(2, MAX_BULK))]
        self.call(jobs, lambda: self.tasks[task].enqueue_many(jobs))

    def committed(self) -> None:
        """Enqueue some activities in a transaction that commits."""
        from django.db import transaction

        jobs = [(task, self.job(task)) for task in self.random.choices(["plain", "keyed"], k=3)]

        def enqueue() -> list[object]:
            with transaction.atomic():
                return [self.tasks[task].enqueue(job) for task, job in jobs]

        self.call([job for _, job in jobs], enqueue)

    def rolled_back(self) -> None:
        """Enqueue some activities in a transaction that rolls back, so that they must have no effect."""
        from django.db import transaction

        jobs = [(task, self.job(task)) for task in self.random.choices(["plain", "keyed"], k=2)]
        for _, job in jobs:
            self.report("offers", job)
        try:
            with transaction.atomic():
                for task, job in jobs:
                    self.tasks[task].enqueue(job)
                raise Undo
        except Undo:
            pass
        finally:
            # In any case, no COMMIT was sent.
            for _, job in jobs:
                self.report("undone", job)

    def call(self, jobs: list, enqueue: Callable[[], list]) -> None:
        """Enqueue, and report the result."""
        for job in jobs:
            self.report("offers", job)
        try:
            handles = enqueue()
        except Exception:
            for job in jobs:
                self.report("unknown", job)
            raise
        for job, handle in zip(jobs, handles, strict=True):
            self.report("enqueued", job, str(handle.agent_id))
        self.recent.append(str(handles[-1].agent_id))

    def cancel(self) -> None:
        """Cancel a recent activity."""
        from django_agentexec import InvalidTransition, activity
        from tests.chaos.observer import report

        if not self.recent:
            return
        agent_id = self.random.choice(self.recent)
        report("cancels", agent_id=agent_id)
        try:
            activity.cancel(agent_id)
        except InvalidTransition:
            report("cancel_refused", agent_id=agent_id)
        else:
            report("canceled", agent_id=agent_id)

    def report(self, kind: str, job: object, agent_id: str = "") -> None:
        from tests.chaos.observer import report

        report(kind, name=job.name, agent_id=agent_id, detail=job.key)


def main(make: type[Producer] = Producer) -> None:
    """Produce until SIGTERM."""
    number, seed, rate, specials = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda received, frame: stopping.append(received))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    django.setup()
    from django.db import DatabaseError, InterfaceError, connection

    from django_agentexec import AgentExecError

    producer, started = make(number, seed, specials), time.monotonic()
    while not stopping:
        try:
            producer.step()
        except (DatabaseError, InterfaceError, AgentExecError) as error:
            print(f"Producer {number}: {error!r}", file=sys.stderr)
            connection.close()
            time.sleep(PAUSE_AFTER_ERROR)
        time.sleep(max(0.0, min(0.5, started + producer.made / rate - time.monotonic())))
        if time.monotonic() - started > producer.made / rate + 1.0:
            started = time.monotonic() - producer.made / rate  # time lost in an outage is not made up for


if __name__ == "__main__":
    main()
