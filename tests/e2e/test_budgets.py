"""Budgets with real processes: never exceeded, no call repeated, and nothing left behind by a killed worker."""

from __future__ import annotations

import os
import signal
from collections import Counter
from decimal import Decimal

import pytest

from django_agentexec.budgets.applicable import table
from django_agentexec.budgets.commands import set_limit
from django_agentexec.models import Activity, BudgetReservation, Status
from tests.e2e.journal import Journal
from tests.support.activity_rows import messages, statuses
from tests.support.budget_rows import budget, set_price, spent
from tests.support.pool_process import pool, until
from tests.testapp.budgets import limited_work, paid_work
from tests.testapp.work import Work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sdk_in_pools")]

CALLS = 5  # of each run


@pytest.fixture(autouse=True)
def prices() -> None:
    """A call costs 0.03 dollars."""
    set_price()
    table.reset()


def calls(journal: Journal) -> list[tuple[str, str]]:
    """Return the calls of the model that were made, by run."""
    return [(event.name, event.event) for event in journal.events() if event.event.startswith("call")]


def waiting() -> int:
    return Activity.objects.suspended().filter(waiting_for="budget").count()


@pytest.mark.slow
def test_eight_runs_in_eight_processes_never_exceed_the_budget_of_their_tenant(journal: Journal) -> None:
    limit = budget("0.10", scope="metadata", metadata_key="tenant", metadata_value="acme")
    for number in range(8):
        work = Work(journal=journal.path, name=str(number), key=str(CALLS - 1), seconds=0.05)
        paid_work.enqueue(work, metadata={"tenant": "acme"})
    other = paid_work.enqueue(Work(journal=journal.path, name="other", key="0"), metadata={"tenant": "b"})

    with pool("--workers", "8", "--concurrency", "1"):
        until(lambda: waiting() == 8 and len(calls(journal)) == 4, "all eight wait")  # three and that of the other
        assert spent(limit) == (Decimal("0.09"), 0)
        until(lambda: Activity.objects.get(pk=other.agent_id).status == Status.COMPLETE, "the other tenant")

        set_limit(limit, Decimal("0.13"))  # one call more
        until(lambda: len(calls(journal)) == 5 and waiting() == 8, "one further call")
        assert spent(limit) == (Decimal("0.12"), 0)

        set_limit(limit, Decimal("1.20"))  # exactly the calls of all
        until(lambda: statuses() == {Status.COMPLETE: 9}, "all complete")

    assert spent(limit) == (Decimal("1.2"), 0)
    repeated = [call for call, number in Counter(calls(journal)).items() if number > 1]
    assert repeated == []
    assert len(calls(journal)) == 8 * CALLS + 1
    assert set(Activity.objects.values_list("attempt", "retries", "crashes")) == {(1, 0, 0)}


def test_a_killed_worker_does_not_keep_what_it_has_reserved(journal: Journal) -> None:
    limit = budget("0.05")  # for one call, and not for two
    paid_work.enqueue(Work(journal=journal.path, name="a", key="0", seconds=1.0))

    with pool("--workers", "1"):
        until(lambda: calls(journal), "the first call")
        assert spent(limit) == (0, Decimal("0.03"))
        os.kill(journal.pid_of("a"), signal.SIGKILL)
        until(lambda: statuses() == {Status.COMPLETE: 1}, "the end of the second try")

    assert len(calls(journal)) == 2
    assert spent(limit) == (Decimal("0.03"), 0)
    assert Activity.objects.get().attempt == 1


def test_what_a_canceled_run_has_reserved_is_released(journal: Journal) -> None:
    limit = budget("0.05")
    first = paid_work.enqueue(Work(journal=journal.path, name="a", key="0", seconds=300))

    with pool("--workers", "1"):
        until(lambda: calls(journal), "the first call")
        second = paid_work.enqueue(Work(journal=journal.path, name="b", key="0"))
        until(lambda: waiting() == 1, "the second waits")
        first.cancel()
        until(lambda: Activity.objects.get(pk=second.agent_id).status == Status.COMPLETE, "the end of the second")

    assert spent(limit) == (Decimal("0.03"), 0)
    assert not BudgetReservation.objects.exists()


def test_a_pool_resumes_what_waits_for_a_provider_when_it_is_due(journal: Journal) -> None:
    waiting_work = limited_work.enqueue(Work(journal=journal.path, name="a"))
    other = paid_work.enqueue(Work(journal=journal.path, name="b", key="0"))

    with pool("--workers", "1", "--concurrency", "1"):
        until(lambda: statuses() == {Status.COMPLETE: 2}, "both complete")

    assert journal.names("start") == ["a", "b", "a"]  # the slot was free during the wait
    row = Activity.objects.get(pk=waiting_work.agent_id)
    assert (row.attempt, row.retries, row.crashes, row.waiting_for) == (1, 0, 0, "")
    assert messages(waiting_work.agent_id)[2:4] == ["Waiting for the limit of a provider.", "The wait is over."]
    assert Activity.objects.get(pk=other.agent_id).attempt == 1
