"""Handlers that misbehave, in a real pool: each ends up on its own row, and nobody else notices."""

from __future__ import annotations

import pytest

from django_agentexec import activity
from django_agentexec.models import Status
from tests.pools import pool, run_burst, until
from tests.rows import messages, row
from tests.testapp.agents import Text, exits, own_transaction, reports_for_ever, shout, unprintable

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

        until(lambda: row(last.agent_id).status == Status.COMPLETE, "the end of the last one")


def test_progress_within_the_handlers_own_transaction() -> None:
    handle = own_transaction.enqueue(Text(text="staff"))

    run_burst("--workers", "1")

    assert row(handle.agent_id).status == Status.COMPLETE
    assert "within" in messages(handle.agent_id)
