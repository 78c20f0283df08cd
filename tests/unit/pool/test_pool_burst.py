"""When a burst is done: the pool's count of processes that found nothing more to do."""

from __future__ import annotations

from typing import cast

import pytest

from django_agentexec.pool.options import PoolOptions
from django_agentexec.pool.process_handle import WorkerProcess
from django_agentexec.pool.supervisor import Pool
from django_agentexec.worker.entrypoint import EXIT_DRAINED, EXIT_RECYCLED
from django_agentexec.worker.options import WorkerOptions
from tests.support.ended_process import Ended

OPTIONS = WorkerOptions(queues=("default",), concurrency=1, burst=True, name="a worker")


@pytest.fixture
def pool() -> Pool:
    return Pool(PoolOptions(worker=OPTIONS, workers=1))


def handle_exit(pool: Pool, ended: Ended) -> bool:
    pool._handle_exit(cast(WorkerProcess, ended))
    return pool._burst_is_done()


def test_it_is_done_when_a_process_found_nothing_more_to_do(pool: Pool) -> None:
    assert handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))


@pytest.mark.parametrize("code", [EXIT_RECYCLED, -9])
def test_it_goes_on_when_a_process_ended_for_another_reason(pool: Pool, code: int) -> None:
    assert not handle_exit(pool, Ended(OPTIONS, code))


def test_a_process_that_cannot_even_start_ends_it(pool: Pool) -> None:
    assert handle_exit(pool, Ended(OPTIONS, 1, has_heartbeat=False))


def test_what_waited_behind_a_suspect_is_for_a_process_that_has_not_looked_before(pool: Pool) -> None:
    quarantine = OPTIONS.for_quarantine()
    looked_too_early = Ended(OPTIONS, EXIT_DRAINED)

    assert not handle_exit(pool, Ended(quarantine, EXIT_DRAINED))
    assert not handle_exit(pool, looked_too_early)
    assert handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))


def test_the_quarantine_begins_anew_what_was_done(pool: Pool) -> None:
    handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))

    assert not handle_exit(pool, Ended(OPTIONS.for_quarantine(), -9))
    assert handle_exit(pool, Ended(OPTIONS, EXIT_DRAINED))
