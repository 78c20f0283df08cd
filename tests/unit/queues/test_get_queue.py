"""The queue backend of a process: a single object for all threads."""

from __future__ import annotations

import threading

import pytest

from django_agentexec import queues
from django_agentexec.queues import Queue, get_queue
from django_agentexec.queues.memory import MemoryQueue


def test_two_threads_whose_first_calls_meet_get_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    both_ask = threading.Barrier(2)
    made: list[Queue] = []

    def make(path: str) -> Queue:
        made.append(MemoryQueue())
        return made[-1]

    def ask() -> None:
        both_ask.wait(10.0)
        got.append(get_queue())

    got: list[Queue] = []
    monkeypatch.setattr(queues, "_create_queue", make)
    monkeypatch.setattr(queues, "_backends", Slow())
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)

    assert len(made) == 1
    assert got[0] is got[1] is made[0]


class Slow(dict[str, Queue]):
    """Lets both threads see that there is none yet, before one of them makes it."""

    def __init__(self) -> None:
        super().__init__()
        self._looked = threading.Barrier(2)
        self._looks = 0

    def get(self, key: str, default: object = None) -> Queue | None:  # type: ignore[override]  # one use of it
        found = super().get(key)
        self._looks += 1
        if self._looks <= 2:
            self._looked.wait(10.0)
        return found
