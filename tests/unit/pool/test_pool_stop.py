"""When a stopping pool is done, and what it charges to the activities whose process it had to kill."""

from __future__ import annotations

import signal
import time
from typing import cast

import pytest

from django_agentexec.pool.options import PoolOptions
from django_agentexec.pool.process_handle import WorkerProcess
from django_agentexec.pool.supervisor import Pool
from django_agentexec.worker.entrypoint import EXIT_DRAINED
from django_agentexec.worker.options import WorkerOptions
from tests.support.ended_process import Ended

OPTIONS = WorkerOptions(queues=("default",), concurrency=1, name="a worker")


@pytest.fixture
def pool() -> Pool:
    return Pool(PoolOptions(worker=OPTIONS, workers=1))


def handle_exit(pool: Pool, ended: Ended) -> None:
    pool._handle_exit(cast(WorkerProcess, ended))


def stop(pool: Pool) -> None:
    pool._stops_begun += 1
    pool._begin_stop()


def test_a_killed_process_has_crashed(pool: Pool) -> None:
    handle_exit(pool, Ended(OPTIONS, -signal.SIGKILL))

    assert pool._unreleased == [(OPTIONS, True)]


def test_one_that_was_killed_for_being_late_has_not(pool: Pool) -> None:
    handle_exit(pool, Ended(OPTIONS, -signal.SIGKILL, was_late=True))

    assert pool._unreleased == [(OPTIONS, False)]


def test_it_waits_for_a_queue_that_is_away(pool: Pool) -> None:
    stop(pool)
    handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))

    assert not pool._is_done()


def test_it_waits_no_longer_than_for_its_processes(pool: Pool) -> None:
    stop(pool)
    handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))
    pool._deadline = time.monotonic()

    assert pool._is_done()


def test_it_does_not_wait_after_a_second_signal(pool: Pool) -> None:
    stop(pool)
    handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))
    stop(pool)

    assert pool._is_done()


def test_it_is_done_when_everything_is_given_back(pool: Pool) -> None:
    stop(pool)
    handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))
    pool._unreleased.clear()

    assert pool._is_done()


def test_a_burst_that_was_not_stopped_does_not_wait() -> None:
    options = WorkerOptions(queues=("default",), concurrency=1, burst=True, name="a worker")
    pool = Pool(PoolOptions(worker=options, workers=1))
    handle_exit(pool, Ended(options, EXIT_DRAINED))

    assert pool._is_done()


class Unkillable:
    """A child that neither sends heartbeats nor has ended yet."""

    options = OPTIONS
    has_heartbeat = True
    stopping = was_killed = was_late = False
    last_beat = -1e9

    def read_heartbeats(self) -> None: ...

    def kill(self) -> None:
        self.was_killed = True

    def kill_late(self) -> None:
        self.was_killed = self.was_late = True


def test_a_kill_is_reported_once_however_long_the_process_takes_to_end(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    pool._processes = [cast(WorkerProcess, Unkillable())]
    for _ in range(3):
        pool._kill_stuck()
    assert [record.getMessage().split(" for ")[0] for record in caplog.records] == [
        "The event loop of worker a worker has been stuck"
    ]

    stop(pool)
    pool._deadline = time.monotonic() - 1
    caplog.clear()
    for _ in range(3):
        pool._kill_stuck()
    assert [record.getMessage() for record in caplog.records] == [
        "Worker process a worker did not end in time; killing it."
    ]
