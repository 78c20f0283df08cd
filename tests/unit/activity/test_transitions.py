"""The state machine: every state with every operation, and who may write."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_agentexec import InvalidTransition, StaleAttempt, Status
from django_agentexec.activity.rerun import Retry
from django_agentexec.activity.transitions import (
    AddUsage,
    Cancel,
    Complete,
    Fail,
    GiveUp,
    Operation,
    Progress,
    Release,
    Start,
)
from django_agentexec.models import Activity

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ID = UUID(int=7)
FENCE = 10

QUEUED, RUNNING, COMPLETE, ERROR, CANCELED = Status.values
REFUSED, STALE = "refused", "stale"


def activity(status: str = RUNNING, **fields: Any) -> Activity:
    """Return a row in a state, as its latest claim left it."""
    values: dict[str, Any] = {"queue": "default", "fence": FENCE, "attempt": 1, "max_retries": 3, **fields}
    return Activity(agent_id=ID, agent_type="work", status=status, **values)


START = Start(agent_id=ID, fence=FENCE + 1, worker="w2", crashes=0)
PROGRESS = Progress(agent_id=ID, fence=FENCE, message="half", percentage=50)
FINISH = Complete(agent_id=ID, fence=FENCE, result=1)
FAIL = Fail(agent_id=ID, fence=FENCE, error="no")
FAIL_FOR_NOW = Fail(agent_id=ID, fence=FENCE, error="no", retry_delay=5.0)
GIVE_UP = GiveUp(agent_id=ID, fence=FENCE + 1, worker="w2", crashes=3)
RELEASE = Release(agent_id=ID, fence=FENCE)
CANCEL = Cancel(agent_id=ID)
RETRY = Retry(agent_id=ID)

# Operation, then what becomes of an activity that is queued, running, complete, in error, canceled.
TABLE: list[tuple[Operation, list[str]]] = [
    (START, [RUNNING, RUNNING, REFUSED, REFUSED, REFUSED]),
    (GIVE_UP, [ERROR, ERROR, REFUSED, REFUSED, REFUSED]),
    (PROGRESS, [STALE, RUNNING, STALE, STALE, STALE]),
    (FINISH, [STALE, COMPLETE, COMPLETE, STALE, STALE]),  # complete twice: the same write again
    (FAIL, [STALE, ERROR, STALE, STALE, STALE]),
    (FAIL_FOR_NOW, [STALE, QUEUED, STALE, STALE, STALE]),
    (RELEASE, [STALE, QUEUED, STALE, STALE, STALE]),
    (CANCEL, [CANCELED, CANCELED, REFUSED, REFUSED, REFUSED]),
    (RETRY, [REFUSED, REFUSED, REFUSED, QUEUED, QUEUED]),
    # By somebody outside of any attempt.
    (Progress(agent_id=ID, message="half"), [REFUSED, RUNNING, REFUSED, REFUSED, REFUSED]),
    (Complete(agent_id=ID), [REFUSED, COMPLETE, REFUSED, REFUSED, REFUSED]),
    (Fail(agent_id=ID, error="no"), [REFUSED, ERROR, REFUSED, REFUSED, REFUSED]),
]
CASES = [
    pytest.param(operation, status, outcome, id=f"{operation!r:.60}-{status}")
    for operation, outcomes in TABLE
    for status, outcome in zip(Status.values, outcomes, strict=True)
]


@pytest.mark.parametrize(("operation", "status", "outcome"), CASES)
def test_the_state_machine(operation: Operation, status: str, outcome: str) -> None:
    row = activity(status, crashes=operation.crashes if isinstance(operation, GiveUp) else 0)

    if outcome in (REFUSED, STALE):
        with pytest.raises(StaleAttempt if outcome == STALE else InvalidTransition) as refusal:
            operation.apply(row, NOW)
        assert type(refusal.value) is (StaleAttempt if outcome == STALE else InvalidTransition)
        assert row.status == status
    else:
        operation.apply(row, NOW)
        assert row.status == outcome


OWNED = [PROGRESS, FINISH, FAIL, FAIL_FOR_NOW, RELEASE, AddUsage(agent_id=ID, usage={"requests": 1}, fence=FENCE)]


@pytest.mark.parametrize("operation", OWNED, ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize("fence", [FENCE - 1, FENCE + 1])
def test_another_fence_than_the_rows_is_refused(operation: Any, fence: int) -> None:
    with pytest.raises(StaleAttempt):
        replace(operation, fence=fence).apply(activity(), NOW)


def test_an_older_claim_cannot_start() -> None:
    with pytest.raises(StaleAttempt):
        replace(START, fence=FENCE - 1).apply(activity(), NOW)


def test_a_start_counts_an_attempt_and_notes_who_runs_it() -> None:
    row = activity(QUEUED, attempt=1, percentage=80, run_after=NOW)

    line = START.apply(row, NOW)

    assert (row.attempt, row.fence, row.worker, row.percentage) == (2, FENCE + 1, "w2", 0)
    assert (row.started_at, row.run_after) == (NOW, None)
    assert line is not None
    assert (line.message, line.status, line.attempt) == ("Task started.", RUNNING, 2)


def test_an_attempt_that_replays_calls_keeps_the_percentage() -> None:
    row = activity(RUNNING, attempt=1, percentage=80)
    row.is_replayed = True

    line = START.apply(row, NOW)

    assert line is not None
    assert (row.percentage, line.percentage) == (80, 80)


def test_a_start_after_a_crash_counts_the_crash_but_no_attempt() -> None:
    row = activity(RUNNING, attempt=1, started_at=NOW - timedelta(minutes=1))

    replace(START, crashes=1).apply(row, NOW)

    assert (row.attempt, row.crashes, row.started_at) == (1, 1, NOW - timedelta(minutes=1))


def test_the_same_start_again_changes_nothing() -> None:
    row = activity(RUNNING, attempt=1, percentage=30)

    line = replace(START, fence=FENCE).apply(row, NOW)

    assert (line, row.attempt, row.percentage) == (None, 1, 30)


def test_the_same_completion_again_keeps_the_first_result() -> None:
    row = activity(COMPLETE, result="first")

    line = FINISH.apply(row, NOW)

    assert (line, row.result) == (None, "first")


def test_completion_clears_the_error_of_an_earlier_attempt() -> None:
    row = activity(error="no", traceback="...")

    FINISH.apply(row, NOW)

    assert (row.error, row.traceback, row.result, row.percentage, row.finished_at) == ("", "", 1, 100, NOW)


def test_progress_without_a_percentage_leaves_it() -> None:
    row = activity(percentage=40)

    line = Progress(agent_id=ID, fence=FENCE, message="still here").apply(row, NOW)

    assert line is not None
    assert (row.percentage, line.percentage, row.latest_log_message) == (40, 40, "still here")


def test_a_failure_with_a_retry_left_is_queued_with_its_delay() -> None:
    row = activity()

    line = FAIL_FOR_NOW.apply(row, NOW)

    assert (row.status, row.retries, row.run_after) == (QUEUED, 1, NOW + timedelta(seconds=5))
    assert line is not None
    assert line.message == "Attempt 1 failed: no. Next attempt in 5.0 s."


@pytest.mark.parametrize("error", ["Did you mean 'a'?", "Stop!", "It is full."])
def test_an_error_that_ends_a_sentence_gets_no_full_stop(error: str) -> None:
    line = replace(FAIL_FOR_NOW, error=error, public_error=error).apply(activity(), NOW)

    assert line is not None
    assert line.message == f"Attempt 1 failed: {error} Next attempt in 5.0 s."


def test_a_failure_without_a_retry_left_is_final() -> None:
    row = activity(retries=3, max_retries=3)

    FAIL_FOR_NOW.apply(row, NOW)

    assert (row.status, row.finished_at, row.retries) == (ERROR, NOW, 3)


def test_a_release_is_not_charged() -> None:
    row = activity(attempt=2, retries=1)

    line = RELEASE.apply(row, NOW)

    assert (row.attempt, row.retries) == (1, 1)
    assert line is not None
    assert line.attempt == 2


def test_giving_up_for_ended_leases_says_so_and_charges_no_crash() -> None:
    row = activity(QUEUED)

    replace(GIVE_UP, crashes=0, expired_leases=5).apply(row, NOW)

    assert (row.status, row.crashes) == (ERROR, 0)
    assert row.error.startswith("The lease of this activity expired 5 times")


def test_neither_the_deaths_nor_the_ended_leases_are_too_many_by_their_sum() -> None:
    row = activity(QUEUED)

    replace(GIVE_UP, crashes=2, expired_leases=4).apply(row, NOW)

    assert row.status == RUNNING


def test_a_death_before_the_start_is_not_charged() -> None:
    row = activity(RUNNING, crashes=1)  # one process had died, then it was started, then two more died that held it

    GIVE_UP.apply(row, NOW)

    assert row.status == RUNNING
    replace(GIVE_UP, fence=FENCE + 2, crashes=4).apply(row, NOW)
    assert row.status == ERROR


def test_giving_up_says_how_many_processes_died() -> None:
    row = activity(RUNNING, crashes=2)

    GIVE_UP.apply(row, NOW)

    assert row.error == "The worker process died 3 times while running this activity."
    assert row.finished_at == NOW


def test_a_retry_gives_all_automatic_retries_back_and_keeps_the_attempts() -> None:
    row = activity(ERROR, retries=3, crashes=2, attempt=4, percentage=70, started_at=NOW, finished_at=NOW)

    RETRY.apply(row, NOW)

    assert (row.retries, row.crashes, row.attempt, row.percentage) == (0, 0, 4, 0)
    assert (row.started_at, row.finished_at, row.run_after) == (None, None, None)


def test_an_activity_that_was_never_queued_cannot_be_retried() -> None:
    with pytest.raises(InvalidTransition, match="never queued"):
        RETRY.apply(activity(ERROR, queue=""), NOW)


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (Progress(agent_id=ID, message="go"), RUNNING),
        (Complete(agent_id=ID), COMPLETE),
        (Fail(agent_id=ID, error="no"), ERROR),
    ],
    ids=["update", "complete", "error"],
)
def test_a_run_that_its_creator_drives_needs_no_claim(operation: Operation, status: str) -> None:
    row = activity(QUEUED, queue="", fence=0, attempt=0)

    operation.apply(row, NOW)

    assert row.status == status


def test_usage_adds_up() -> None:
    row = activity(usage={"input_tokens": 10})

    line = AddUsage(agent_id=ID, fence=FENCE, usage={"input_tokens": 5, "output_tokens": 2}).apply(row, NOW)

    assert (line, row.usage) == (None, {"input_tokens": 15, "output_tokens": 2})


def test_tokens_are_counted_after_a_cancel_too() -> None:
    row = activity(CANCELED)

    AddUsage(agent_id=ID, fence=FENCE, usage={"requests": 1}).apply(row, NOW)

    assert (row.status, row.usage) == (CANCELED, {"requests": 1})


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"], ids=["NUL", "half of a surrogate pair"])
def test_text_that_no_database_holds_is_replaced(text: str) -> None:
    row = activity()

    line = Fail(agent_id=ID, fence=FENCE, error=text, traceback=text).apply(row, NOW)

    assert (row.error, row.traceback) == ("a\ufffdb", "a\ufffdb")
    assert line is not None
    assert (line.message, line.traceback) == ("Task failed with error: a\ufffdb", "a\ufffdb")


def test_braces_in_an_error_are_text() -> None:
    row = activity()

    Fail(agent_id=ID, fence=FENCE, error="{attempt.__class__} {0} {").apply(row, NOW)

    assert row.latest_log_message == "Task failed with error: {attempt.__class__} {0} {"


@pytest.mark.parametrize("template", ["Oh no: {wrong}", "Oh no: {", "Oh no: {error.nothing}", "{0}", "{error:d}"])
def test_a_message_setting_with_wrong_braces_stays_as_it_is(template: str) -> None:
    row = activity()

    with override_settings(AGENTEXEC={"ACTIVITY_MESSAGE_ERROR": template}):
        FAIL.apply(row, NOW)

    assert row.latest_log_message == template


def test_messages_are_settings() -> None:
    row = activity()

    with override_settings(AGENTEXEC={"ACTIVITY_MESSAGE_COMPLETE": "Fertig."}):
        FINISH.apply(row, NOW)

    assert row.latest_log_message == "Fertig."


# Parked: running, without a worker


def suspended(**fields: Any) -> Activity:
    return activity(blocking_child_id=UUID(int=8), awaited_ids=[str(UUID(int=8))], **fields)


@pytest.mark.parametrize("operation", [*OWNED[:-1], START, GIVE_UP], ids=lambda operation: type(operation).__name__)
def test_neither_the_suspended_attempt_nor_a_worker_changes_a_suspended_activity(operation: Operation) -> None:
    row = suspended()

    with pytest.raises(InvalidTransition):
        operation.apply(row, NOW)

    assert row.is_suspended


@pytest.mark.parametrize("operation", [CANCEL, Complete(agent_id=ID), Fail(agent_id=ID, error="no")], ids=repr)
def test_code_outside_the_attempt_may_end_a_suspended_activity(operation: Operation) -> None:
    row = suspended()

    operation.apply(row, NOW)

    assert not row.is_suspended


def test_a_retry_clears_the_awaited_children() -> None:
    row = suspended()
    CANCEL.apply(row, NOW)

    RETRY.apply(row, NOW)

    assert (row.status, row.blocking_child_id, row.awaited_ids) == (QUEUED, None, None)


def test_a_start_after_a_wait_is_the_same_attempt() -> None:
    row = activity(QUEUED, attempt=2, percentage=40, blocking_child_id=UUID(int=8))

    line = START.apply(row, NOW)

    assert (row.status, row.attempt, row.percentage, row.blocking_child_id) == (RUNNING, 2, 40, None)
    assert line is not None
    assert line.message == "Task resumed."


def test_crashes_that_were_forgiven_do_not_end_it() -> None:
    row = activity(crashes=2, discounted_crashes=1)

    GIVE_UP.apply(row, NOW)
    assert row.status == RUNNING

    replace(GIVE_UP, fence=FENCE + 2, crashes=4).apply(row, NOW)
    assert (row.status, row.error) == (ERROR, "The worker process died 3 times while running this activity.")
