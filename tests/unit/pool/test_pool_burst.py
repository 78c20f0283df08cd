"""When a burst is done: the pool's count of processes that found nothing more to do."""

from __future__ import annotations

import pytest

from tests.support.stepped_pool import BURST, DRAINED, KILLED, RECYCLED, Ended, SteppedPool


@pytest.fixture
def pool() -> SteppedPool:
    return SteppedPool(BURST)


def is_done_after(pool: SteppedPool, ended: Ended) -> bool:
    pool.end(ended)
    return pool.is_done


def test_it_is_done_when_a_process_found_nothing_more_to_do(pool: SteppedPool) -> None:
    assert is_done_after(pool, Ended(BURST, DRAINED))


@pytest.mark.parametrize("code", [RECYCLED, KILLED])
def test_it_goes_on_when_a_process_ended_for_another_reason(pool: SteppedPool, code: int) -> None:
    assert not is_done_after(pool, Ended(BURST, code))


def test_a_process_that_cannot_even_start_ends_it(pool: SteppedPool) -> None:
    assert is_done_after(pool, Ended(BURST, 1, has_heartbeat=False))


def test_what_waited_behind_a_suspect_is_for_a_process_that_has_not_looked_before(pool: SteppedPool) -> None:
    quarantine = BURST.for_quarantine()
    looked_too_early = Ended(BURST, DRAINED)

    assert not is_done_after(pool, Ended(quarantine, DRAINED))
    assert not is_done_after(pool, looked_too_early)
    assert is_done_after(pool, Ended(BURST, DRAINED))


def test_the_quarantine_begins_anew_what_was_done(pool: SteppedPool) -> None:
    assert is_done_after(pool, Ended(BURST, DRAINED))

    assert not is_done_after(pool, Ended(BURST.for_quarantine(), KILLED))
    assert is_done_after(pool, Ended(BURST, DRAINED))
