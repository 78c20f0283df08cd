"""The judgment of locks, order and fences, as in `test_judgment`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.histories import enqueued, event, fault, fence, findings, past, ran, the_finding
from tests.chaos.history import History
from tests.chaos.observer import Event

# A key runs one at a time

LATER = {"name": "k-2", "agent_id": "id-2", "pid": 2, "fence": 9, "key": "k"}


def overlap(*more: Event, first_end: float = 12.0, later_start: float = 10.0, **first: Any) -> History:
    """Return a history in which the run of k-1, from 1 on, and that of k-2 overlap."""
    return past(
        ran(1, first_end, "k-1", "id-1", key="k", **first),
        ran(later_start, 20, **LATER),
        *more,  # type: ignore[arg-type]
    )


ONE = "a key runs one at a time"


def test_two_live_runs_of_a_key_are_found() -> None:
    finding = the_finding(ONE, overlap())

    assert "k-2 (id-2, process 2, fence 9) started at 10.000, while k-1 (id-1, process 1, fence 5)" in finding


def test_a_run_that_ends_before_the_next_starts_is_none() -> None:
    assert findings(ONE, overlap(first_end=9.9)) == []


def test_other_keys_do_not_matter() -> None:
    assert findings(ONE, past(ran(1, 9, "k-1", key="k"), ran(2, 3, "j-1", "id-2", key="j"))) == []


def test_a_run_that_dies_is_over() -> None:
    assert findings(ONE, overlap(first_end=9.9, how="died")) == []


def test_a_run_that_never_ended_overlaps_with_all_that_come() -> None:
    history = past(event(1, "start", "k-1", detail="k", fence=5), ran(10, 20, **LATER))

    assert "ran from 1.000 to inf" in the_finding(ONE, history)


def test_a_third_run_is_compared_with_the_first_too() -> None:
    history = past(ran(1, 30, "k-1", "id-1", key="k"), ran(10, 11, **LATER), ran(20, 21, "k-3", "id-3", pid=3, key="k"))

    assert len(findings(ONE, history)) == 2


def test_a_frozen_process_cannot_be_told() -> None:
    assert findings(ONE, overlap(fault("freeze_worker", 2, 11.5, pid=1))) == []


@pytest.mark.parametrize(
    ("excuse", "why_not"),
    [
        (fault("freeze_worker", 2, 11.5, pid=3), "another process was frozen"),
        (fault("freeze_worker", 2, 8.5, pid=1), "it had long been awake"),
        (fault("freeze_worker", 10.5, 11.5, pid=1), "it was frozen after the other handler had started"),
        (fault("kill_worker", 2, 11.5, pid=1), "not frozen"),
        (fault("network", 2, 11.5, places=[0], choice="cut:both"), "a handler can be notified without a network"),
        (fault("freeze_pool", 2, 11.5, pid=1), "its pool was frozen"),
    ],
)
def test_nothing_else_is_an_excuse(excuse: Event, why_not: str) -> None:
    assert findings(ONE, overlap(excuse)), why_not


BLOCKED = [event(2, "blocks", "b", "id-b", pid=1), event(11.5, "unblocks", "b", "id-b", pid=1)]


def test_a_blocked_process_that_cannot_reach_the_queue_cannot_be_told() -> None:
    assert findings(ONE, overlap(*BLOCKED, fault("network", 2, 9, places=[0], choice="cut:both"))) == []
    assert findings(ONE, overlap(*BLOCKED, fault("flush", 3, 3))) == []


def test_a_blocked_process_keeps_its_lease_while_it_reaches_the_queue() -> None:
    assert the_finding(ONE, overlap(*BLOCKED))
    assert the_finding(ONE, overlap(*BLOCKED, fault("network", 2, 9, places=[1], choice="cut:both")))
    assert the_finding(ONE, overlap(*BLOCKED, fault("network", 2, 9, places=[0], choice="cut:database")))
    assert the_finding(ONE, overlap(*BLOCKED, fault("network", 20, 30, places=[0], choice="cut:valkey")))


# A key keeps its order


def test_a_run_that_overtakes_is_found() -> None:
    history = past(
        enqueued("k-1", "id-1"), enqueued("k-2", "id-2"), ran(1, 2, "k-2", "id-2", key="k"), ran(3, 4, "k-1", key="k")
    )

    assert "k-2 (id-2) of key k started at 1.000, before k-1 (id-1)" in the_finding("a key keeps its order", history)


def test_a_second_start_may_come_after_later_ones() -> None:
    history = past(
        *(enqueued("k-1", "id-1"), enqueued("k-2", "id-2"), ran(1, 2, "k-1", key="k", how="raised")),
        *(ran(3, 4, "k-2", "id-2", key="k"), ran(5, 6, "k-1", key="k", fence=8)),
    )

    assert findings("a key keeps its order", history) == []


def test_whose_enqueue_failed_has_no_place_in_the_order() -> None:
    history = past(enqueued("k-2", "id-2"), ran(1, 2, "k-2", "id-2", key="k"), ran(3, 4, "k-1", key="k"))

    assert findings("a key keeps its order", history) == []


# No stale write is accepted

STALE = "no stale write is accepted"


def test_an_older_fence_behind_a_newer_one_in_the_log_is_found() -> None:
    history = past(lines=[fence(1, 5), fence(2, 8), fence(3, 5, "farewell")])

    assert "the line 'fence=5 farewell' follows one of fence 8" in the_finding(STALE, history)


def test_an_accepted_write_that_was_begun_after_a_newer_start_is_found() -> None:
    wrote = event(6, "wrote", fence=5, detail="half")

    assert "wrote 'half' with fence 5" in the_finding(STALE, past(ran(1, 9), ran(5, 9, fence=8, pid=2), wrote))


def test_a_write_that_was_begun_before_may_be_accepted_late() -> None:
    assert findings(STALE, past(ran(1, 9), ran(5, 9, fence=8, pid=2), event(4, "wrote", fence=5))) == []


def test_a_refused_write_is_as_it_should_be() -> None:
    assert findings(STALE, past(ran(1, 9), ran(5, 9, fence=8, pid=2), event(6, "refused", fence=5))) == []
