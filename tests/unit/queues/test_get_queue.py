"""The queue backend of a process: a single object for all threads."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from django_agentexec.queues import Queue, get_queue
from django_agentexec.queues.memory import MemoryQueue

MEETING = 0.3  # seconds for which a backend that is being made waits for another


def test_two_threads_whose_first_calls_meet_get_the_same_queue(settings: Any) -> None:
    made: list[Queue] = []
    both_are_made = threading.Barrier(2)

    class Slow(MemoryQueue):
        """A backend whose creation takes so long that the other thread would create another."""

        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            with suppress(threading.BrokenBarrierError):
                both_are_made.wait(MEETING)

    settings.AGENTEXEC = {"QUEUE_BACKEND": Slow}
    both_ask = threading.Barrier(2)
    got: list[Queue] = []

    def ask() -> None:
        both_ask.wait(10.0)
        got.append(get_queue())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)

    assert len(made) == 1
    assert got[0] is got[1] is made[0]
