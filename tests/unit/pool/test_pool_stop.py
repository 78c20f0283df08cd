"""When a stopping pool is done, and what it charges to the activities whose process it had to kill."""

from __future__ import annotations

import pytest

from tests.support.stepped_pool import BURST, DRAINED, KILLED, OPTIONS, Ended, SteppedPool, Unkillable


@pytest.fixture
def pool() -> SteppedPool:
    return SteppedPool()


def test_a_killed_process_has_crashed(pool: SteppedPool) -> None:
    pool.end(Ended(OPTIONS, KILLED))

    assert pool.unreleased == [(OPTIONS, True)]


def test_a_process_that_was_killed_for_being_late_has_not(pool: SteppedPool) -> None:
    pool.end(Ended(OPTIONS, KILLED, was_late=True))

    assert pool.unreleased == [(OPTIONS, False)]


def test_it_waits_for_a_queue_that_is_unavailable(pool: SteppedPool) -> None:
    pool.stop()
    pool.end(Ended(OPTIONS, DRAINED))

    assert not pool.is_done


def test_it_waits_no_longer_than_for_its_processes(pool: SteppedPool) -> None:
    pool.stop()
    pool.end(Ended(OPTIONS, DRAINED))
    pool.reach_deadline()

    assert pool.is_done


def test_it_does_not_wait_after_a_second_signal(pool: SteppedPool) -> None:
    pool.stop()
    pool.end(Ended(OPTIONS, DRAINED))
    pool.stop()

    assert pool.is_done


def test_it_is_done_when_everything_is_given_back(pool: SteppedPool) -> None:
    pool.stop()
    pool.end(Ended(OPTIONS, DRAINED))
    pool.unreleased.clear()

    assert pool.is_done


def test_a_burst_that_was_not_stopped_does_not_wait() -> None:
    pool = SteppedPool(BURST)
    pool.end(Ended(BURST, DRAINED))

    assert pool.is_done


def test_a_kill_is_reported_once_however_long_the_process_takes_to_end(
    pool: SteppedPool, caplog: pytest.LogCaptureFixture
) -> None:
    pool.add(Unkillable())
    for _ in range(3):
        pool.kill_stuck()
    assert [record.getMessage().split(" for ")[0] for record in caplog.records] == [
        "The event loop of worker a worker has been stuck"
    ]

    pool.stop()
    pool.reach_deadline()
    caplog.clear()
    for _ in range(3):
        pool.kill_stuck()
    assert [record.getMessage() for record in caplog.records] == [
        "Worker process a worker did not end in time; killing it."
    ]
