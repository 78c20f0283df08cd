"""Rounds: what is noted is done, whatever a round does, and in a forked process, too."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from django_agentexec.background import BatchingThread


class Doubling(BatchingThread):
    thread_name = "doubling"

    def __init__(self, do: Callable[[int], None]) -> None:
        self._do = do
        super().__init__()

    def _reset(self) -> None:
        super()._reset()
        self.waiting: list[int] = []

    def note(self, number: int) -> None:
        with self._lock:
            self.waiting.append(number)
            self._wake()

    def held(self) -> threading.Lock:
        """Return the lock, to hold it as a thread of the parent may at the moment of a fork."""
        return self._lock

    def _interval(self) -> float:
        return 60.0

    def _process_batch(self) -> None:
        with self._lock:
            waiting, self.waiting = self.waiting, []
        for number in waiting:
            self._do(2 * number)


def test_a_flush_waits_for_no_pause() -> None:
    done: list[int] = []
    rounds = Doubling(done.append)

    for number in range(5):
        rounds.note(number)
        assert rounds.flush(10.0)

    assert done == [0, 2, 4, 6, 8]


def test_a_round_that_fails_is_told_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    done: list[float] = []
    rounds = Doubling(lambda number: done.append(1 / number))

    rounds.note(0)
    assert rounds.flush(10.0)
    rounds.note(1)
    assert rounds.flush(10.0)

    assert done == [0.5]
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.ERROR, "Thread doubling failed to process a batch.")
    ]


def test_where_no_thread_can_start_the_next_note_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    rounds = Doubling(done.append)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_room)
        rounds.note(1)
        assert rounds.flush(0.01)  # nobody has to wait for what nobody does
    rounds.note(2)
    assert rounds.flush(10.0)

    assert done == [2, 4]


def no_room(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_flush_ends_when_its_time_is_over() -> None:
    go_on = threading.Event()
    rounds = Doubling(lambda number: go_on.wait(10.0) and None)

    rounds.note(1)

    assert not rounds.flush(0.01)
    go_on.set()
    assert rounds.flush(10.0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_rounds_of_its_own() -> None:
    done: list[int] = []
    rounds = Doubling(done.append)
    rounds.note(1)
    assert rounds.flush(10.0)

    with rounds.held():
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                rounds.note(2)
                done_in_time = rounds.flush(10.0)
            finally:
                os._exit(0 if done_in_time and done == [2, 4] else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_critical_thread_that_fails_ends_its_process() -> None:
    code = (
        "import time; from django_agentexec.background import start_critical_thread\n"
        "def fail(): raise RuntimeError('a defect')\n"
        "start_critical_thread('agentexec-test', fail); time.sleep(30)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)

    assert ended.returncode == 1
    assert "agentexec-test" in ended.stderr
    assert "a defect" in ended.stderr
