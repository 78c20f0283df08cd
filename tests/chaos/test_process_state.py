"""The ids of processes to which the faults are applied."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from tests.support.process_state import is_alive, state_of


def test_the_id_of_a_thread_is_no_process() -> None:
    ids: list[int] = []
    is_known, is_done = threading.Event(), threading.Event()

    def run() -> None:
        ids.append(threading.get_native_id())
        is_known.set()
        is_done.wait(30)

    thread = threading.Thread(target=run)
    thread.start()
    is_known.wait(30)
    try:
        assert not is_alive(ids[0])
        assert is_alive(os.getpid())
        assert state_of(os.getpid())[1] == os.getppid()
    finally:
        is_done.set()
        thread.join()


def test_an_ended_process_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)

        assert not is_alive(process.pid)
