"""Fork hooks: a forked process starts with reset state, and with the locks released."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from django_agentexec import forks


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_resets", [])
    monkeypatch.setattr(forks, "_locks", [])


def in_fork(check: Callable[[], bool]) -> bool:
    child = os.fork()
    if not child:
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_reset_runs_in_the_child_only() -> None:
    state = ["parent"]
    forks.reset_after_fork(state.clear)
    assert in_fork(lambda: state == [])
    assert state == ["parent"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_registering_twice_has_no_effect() -> None:
    resets: list[str] = []

    def reset() -> None:
        resets.append("reset")

    lock = threading.Lock()  # a second `acquire` would never return
    for _ in range(2):
        forks.reset_after_fork(reset)
        forks.hold_during_fork(lock)
        forks.install()
    assert in_fork(lambda: resets == ["reset"] and not lock.locked())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_the_lock_and_releases_it_on_both_sides() -> None:
    lock = threading.Lock()
    steps: list[str] = []
    forks.hold_during_fork(lock)
    lock.acquire()

    def finish() -> None:
        steps.append("work under the lock")
        lock.release()

    threading.Timer(0.1, finish).start()
    assert in_fork(lambda: steps == ["work under the lock"] and not lock.locked())
    assert not lock.locked()


def test_locks_are_acquired_in_the_order_of_their_registration() -> None:
    order: list[str] = []

    class Recorded:
        def __init__(self, name: str) -> None:
            self.name = name

        def acquire(self) -> bool:
            order.append(f"+{self.name}")
            return True

        def release(self) -> None:
            order.append(f"-{self.name}")

    forks.hold_during_fork(Recorded("outer"))
    forks.hold_during_fork(Recorded("inner"))
    assert in_fork(lambda: order == ["+outer", "+inner", "-inner", "-outer"])
