"""Handlers that misbehave, in a real pool: each ends up on its own row, and nobody else notices."""

from __future__ import annotations

import pytest

from django_agentexec import Status, activity
from tests.e2e.journal import Journal
from tests.support.activity_rows import messages, row
from tests.support.pool_process import pool, run_burst, until
from tests.support.process_state import is_alive
from tests.testapp.agents import (
    Text,
    Work,
    exits,
    leaves_a_process,
    own_transaction,
    reports_for_ever,
    shout,
    square_elsewhere,
    unprintable,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]


def test_an_exit_or_a_broken_error_is_a_failure_and_the_others_complete() -> None:
    failing = [exits.enqueue(Text(text="x")), unprintable.enqueue(Text())]
    others = [shout.enqueue(Text(text="x")) for _ in range(5)]

    run_burst("--workers", "1")

    assert [row(handle.agent_id).error for handle in failing] == [
        "SystemExit: x",
        "Unprintable: (its text cannot be made)",
    ]
    assert [row(handle.agent_id).crashes for handle in failing] == [0, 0]
    assert {row(handle.agent_id).status for handle in others} == {Status.COMPLETE}


def test_a_cancel_in_the_middle_of_a_write_leaves_the_worker_writing() -> None:
    with pool("--workers", "1"):
        for _ in range(5):
            handle = reports_for_ever.enqueue(Text())
            until(lambda handle=handle: len(messages(handle.agent_id)) > 5, "reports")
            activity.cancel(handle.agent_id)
        last = shout.enqueue(Text(text="x"))

        until(lambda: row(last.agent_id).status == Status.COMPLETE, "the end of the last")


def test_progress_within_the_handlers_own_transaction() -> None:
    handle = own_transaction.enqueue(Text(text="staff"))

    run_burst("--workers", "1")

    assert row(handle.agent_id).status == Status.COMPLETE
    assert "within" in messages(handle.agent_id)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_handlers_compute_in_processes_of_their_own(method: str) -> None:
    handles = [square_elsewhere.enqueue(Text(text=kind)) for kind in ("pool", "executor", "process")]

    run_burst("--workers", "1", START_METHOD=method)

    assert [row(handle.agent_id).result for handle in handles] == [[0, 1, 4, 9], [0, 1, 4, 9], [9]]


def test_a_process_that_a_handler_has_left_ends_with_the_worker(journal: Journal) -> None:
    leaves_a_process.enqueue(Work(journal=journal.path, name="left"))

    with pool("--workers", "1"):
        until(lambda: journal.events("start"), "the start of the process")
        (left,) = journal.events("start")

    until(lambda: not is_alive(left.pid), "the end of the process")
