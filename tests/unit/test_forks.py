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


class Recorded:
    """A lock that notes what is done with it."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self.steps = name, steps

    def acquire(self) -> bool:
        self.steps.append(f"+{self.name}")
        return True

    def release(self) -> None:
        self.steps.append(f"-{self.name}")


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
    steps: list[str] = []

    def reset() -> None:
        steps.append("reset")

    lock = Recorded("lock", steps)
    for _ in range(2):
        forks.reset_after_fork(reset)
        forks.hold_during_fork(lock)
        forks.install()
    assert in_fork(lambda: steps == ["+lock", "-lock", "reset"])


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
    forks.hold_during_fork(Recorded("outer", order))
    forks.hold_during_fork(Recorded("inner", order))
    assert in_fork(lambda: order == ["+outer", "+inner", "-inner", "-outer"])
