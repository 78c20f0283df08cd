"""The judgment finds violations: for each promise, a constructed history that breaks it has the expected finding, and
a history with an excused exception has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.histories import (
    COMPLETED,
    GIVEN_UP,
    GOOD,
    enqueued,
    event,
    fault,
    fence,
    findings,
    healthy,
    line,
    past,
    ran,
    the_finding,
)
from tests.chaos.judgment import PROMISES, judge
from tests.chaos.observer import Event


def test_a_healthy_run_has_no_findings() -> None:
    assert judge(healthy()) == {promise: [] for promise in PROMISES}


# Nothing is lost


def test_an_enqueue_without_a_row_is_found() -> None:
    assert "p0-1 (id-1) was enqueued, and has no row" in the_finding("nothing is lost", past(enqueued()))


def test_an_activity_that_has_not_ended_is_found() -> None:
    history = past(enqueued(), rows=[replace(GOOD, status="running")])

    assert "has not ended: it is running" in the_finding("nothing is lost", history)


def test_a_row_that_nobody_enqueued_is_found() -> None:
    assert "has a row, but was not enqueued" in the_finding("nothing is lost", past(rows=[GOOD]))


def test_an_id_with_another_ones_row_is_found() -> None:
    history = past(
        enqueued(), enqueued("p0-2", "id-2"), rows=[replace(GOOD, name="p0-2"), replace(GOOD, agent_id="id-2")]
    )

    assert "its row belongs to p0-2" in findings("nothing is lost", history)[0]


def test_a_failed_enqueue_may_have_a_row_or_not_but_must_end() -> None:
    failed = [event(0, "offers", agent_id=""), event(1, "unknown", agent_id="")]

    assert findings("nothing is lost", past(failed)) == []
    assert findings("nothing is lost", past(failed, rows=[GOOD])) == []
    assert the_finding("nothing is lost", past(failed, rows=[replace(GOOD, status="queued")]))


# A rollback leaves nothing


def test_a_row_that_was_rolled_back_is_found() -> None:
    history = past(event(0, "undone"), rows=[GOOD])

    assert "was rolled back, and has a row" in the_finding("a rollback leaves nothing", history)


def test_a_run_of_what_was_rolled_back_is_found() -> None:
    assert "was run by process 1" in the_finding("a rollback leaves nothing", past(event(0, "undone"), ran(1, 2)))


# Effects happen once


def test_two_completions_are_found() -> None:
    history = past(rows=[GOOD], lines=[COMPLETED, replace(COMPLETED, id=10)])

    assert "complete with 2 lines of completion" in the_finding("effects happen once", history)


def test_a_completion_without_its_line_is_found() -> None:
    assert "with 0 lines of completion" in the_finding("effects happen once", past(rows=[GOOD]))


def test_a_line_of_completion_of_what_is_not_complete_is_found() -> None:
    history = past(rows=[replace(GOOD, status="canceled")], lines=[COMPLETED])

    assert "is canceled with 1 lines" in the_finding("effects happen once", history)


def test_progress_that_was_written_twice_is_found() -> None:
    history = past(lines=[fence(1, 5), fence(2, 5)])

    assert "id-1 has 2 log lines 'fence=5 begins'" in the_finding("effects happen once", history)


def test_a_result_of_another_execution_is_found() -> None:
    history = past(rows=[replace(GOOD, fence=6)], lines=[COMPLETED])

    assert "has fence 6, but the result" in the_finding("effects happen once", history)


def test_an_enqueue_that_made_two_rows_is_found() -> None:
    history = past(rows=[replace(GOOD, status="error"), replace(GOOD, agent_id="id-2", status="error")])

    assert "p0-1 has 2 rows" in the_finding("effects happen once", history)


# Every end fits its history

FITS = "every end fits its history"


def test_a_completion_that_nobody_returned_is_found() -> None:
    assert "no such execution has returned" in the_finding(FITS, past(ran(1, 2, how="raised"), rows=[GOOD]))
    assert the_finding(FITS, past(ran(1, 2, fence=4), rows=[GOOD]))


def test_a_cancellation_that_nobody_asked_for_is_found() -> None:
    canceled = replace(GOOD, status="canceled")

    assert "no cancel was requested" in the_finding(FITS, past(rows=[canceled]))
    assert findings(FITS, past(event(1, "cancels"), rows=[canceled])) == []


def test_a_confirmed_cancellation_without_effect_is_found() -> None:
    history = past(ran(1, 2), event(1, "cancels"), event(2, "canceled"), rows=[GOOD])

    assert "although its cancellation was confirmed" in the_finding(FITS, history)


FAILED = replace(GOOD, task="failing", status="error", retries=1, max_retries=1, error="Planned: p0-1 fails as planned")


def test_a_failure_needs_an_error_of_each_try() -> None:
    once, twice = ran(1, 2, how="raised"), ran(3, 4, how="raised", fence=6)

    assert findings(FITS, past(once, twice, rows=[FAILED])) == []
    assert "after 1 retries and 1 errors, of 1" in the_finding(FITS, past(once, rows=[FAILED]))
    assert the_finding(FITS, past(once, twice, rows=[replace(FAILED, retries=0)]))


def test_an_error_of_another_kind_is_found() -> None:
    history = past(rows=[replace(FAILED, error="OperationalError: boom")])

    assert "ended in an unplanned error: 'OperationalError: boom'" in the_finding(FITS, history)


LOST = replace(GOOD, status="error", crashes=3, error=GIVEN_UP)


def test_who_was_given_up_had_three_starts_cut_off() -> None:
    cut_off = [ran(at, at + 0.5, how="died", fence=at, pid=at) for at in (1, 2, 3)]

    assert findings(FITS, past(*cut_off, rows=[LOST])) == []
    assert "after 3 crashes, but only 2 starts" in the_finding(FITS, past(*cut_off[:2], rows=[LOST]))
    assert the_finding(FITS, past(*cut_off, rows=[replace(LOST, crashes=2)]))


def test_a_start_that_did_not_reach_the_handler_counts() -> None:
    cut_off = [ran(at, at + 0.5, how="died", fence=at, pid=at) for at in (1, 2)]
    lines = [line(number, "Task started.") for number in (1, 2, 3)]

    assert findings(FITS, past(*cut_off, rows=[LOST], lines=lines)) == []


def test_a_start_that_ended_in_an_error_was_not_cut_off() -> None:
    runs = [ran(1, 2, how="raised", fence=1), *(ran(at, at + 1, how="died", fence=at, pid=at) for at in (3, 5))]

    assert "3 starts, of which 1 ended" in the_finding(FITS, past(*runs, rows=[LOST]))


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_a_worker_that_lived_on_while_its_lease_ended_is_charged_no_crash(how: str) -> None:
    frozen = ran(2, 9, how=how, fence=2, pid=2)
    others = [ran(at, at + 0.5, how="died", fence=at, pid=at) for at in (1, 5)]

    assert "3 starts, of which 1 ended" in the_finding(FITS, past(frozen, *others, rows=[LOST]))


def test_a_process_that_died_before_the_end_was_in_the_row_is_a_crash() -> None:
    unwritten = [*ran(2, 3, fence=2, pid=2), event(4, "gone", "", "", pid=2)]
    others = [ran(at, at + 0.5, how="died", fence=at, pid=at) for at in (1, 5)]

    assert findings(FITS, past(unwritten, *others, rows=[LOST])) == []


LAPSED = replace(LOST, crashes=0, error="The lease of this activity expired 5 times: its worker died with its pool.")


def test_who_was_given_up_for_its_leases_had_as_many_starts_cut_off() -> None:
    cut_off = [ran(at, at + 0.5, how="died", fence=at, pid=at) for at in (1, 2, 3, 4)]
    frozen = ran(5, 9, fence=5, pid=5)
    superseding = ran(6, 6.5, fence=6, pid=6, how="raised")

    assert findings(FITS, past(*cut_off, frozen, superseding, rows=[LAPSED])) == []
    assert "only 4 starts, of which 0 ended" in the_finding(FITS, past(*cut_off, rows=[LAPSED]))


# Poison

POISON = replace(LOST, task="poison")
QUARANTINE = "poison ends, and its neighbours do not"


def poisoned(times: int) -> list[Event]:
    return [one for n in range(times) for one in ran(10 * n + 1, 10 * n + 2, how="exits", fence=n + 1, pid=n + 1)]


def test_poison_that_is_no_error_is_found() -> None:
    history = past(poisoned(1), rows=[replace(POISON, status="complete")])

    assert "is poison, and complete" in the_finding(QUARANTINE, history)


def test_poison_that_is_started_too_often_is_found() -> None:
    assert findings(QUARANTINE, past(poisoned(3), rows=[POISON])) == []
    assert "was started 4 times" in the_finding(QUARANTINE, past(poisoned(4), rows=[POISON]))


def test_a_loss_of_data_may_cost_one_start_more() -> None:
    assert findings(QUARANTINE, past(poisoned(4), fault("flush", 15, 15), rows=[POISON])) == []


@pytest.mark.parametrize(
    "cause",
    [
        fault("kill_pool", 12, 12.1, number=0),
        fault("freeze_pool", 11, 20, number=0),
        fault("network", 11, 20, places=[0], choice="half_open:valkey"),
    ],
)
def test_a_death_that_its_pool_could_not_report_may_cost_one_start_more(cause: Event) -> None:
    elsewhere = replace(cause, detail=cause.detail.replace('"number": 0', '"number": 1').replace("[0]", "[1]"))

    assert findings(QUARANTINE, past(poisoned(4), cause, rows=[POISON])) == []
    assert "was started 4 times" in the_finding(QUARANTINE, past(poisoned(4), elsewhere, rows=[POISON]))


def test_a_neighbour_that_poison_took_down_twice_is_found() -> None:
    neighbour = [ran(10 * n + 1, 10 * n + 2, "n", "id-n", how="died", fence=n + 1, pid=n + 1) for n in range(2)]
    rows = [POISON, replace(GOOD, agent_id="id-n", name="n")]

    assert findings(QUARANTINE, past(poisoned(3), *neighbour[:1], rows=rows)) == []
    assert "n (id-n) died 2 times by others' poison" in the_finding(
        QUARANTINE, past(poisoned(3), *neighbour, rows=rows)
    )


# Nothing stays behind


@pytest.mark.parametrize(
    ("key", "seconds"),
    [("{agentexec:default}:surprise", -1), ("agentexec:surprise", 10), ("agentexec:count:total", -1), ("other", -1)],
)
def test_a_key_that_nobody_declared_is_found(key: str, seconds: int) -> None:
    history = past(keys_left={key: seconds}, queue_keys=["{agentexec:default}:dead"])

    assert key in the_finding("no key is left", history)


def test_an_activity_that_is_still_in_the_queue_is_found() -> None:
    assert "2 activities are still leased" in the_finding("no key is left", past(occupied={"leased": 2}))


def test_a_process_that_is_left_is_found() -> None:
    assert "still there: process 7" in the_finding("no process is left", past(processes_left=["process 7"]))


def test_a_pool_that_did_not_end_in_peace_is_found() -> None:
    assert "the pools ended with [0, 3]" in the_finding("no process is left", past(exit_codes={"the pools": [0, 3]}))
