"""The activities that a budget covers, and the periods in which its limit applies."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec import Attempt, OpenAIRunner, RunBudget, task
from django_agentexec.budgets.applicable import ledgers_for, table
from django_agentexec.models import Activity, Budget, BudgetLedger, Status
from django_agentexec.testing import drain, make_attempt
from tests.e2e.journal import Journal
from tests.support.budget_rows import budget
from tests.support.contexts import Empty
from tests.support.priced_calls import child_of, run_of
from tests.testapp.budgets import paid_work
from tests.testapp.paid_agent import paid_agent
from tests.testapp.work import Work

pytestmark = pytest.mark.django_db(transaction=True)


def ledgers(activity: Activity, **options: Any) -> list[BudgetLedger]:
    """Return the ledgers that a call of an activity is charged to."""
    return async_to_sync(ledgers_for)(make_attempt(activity.agent_id), **options)


def names(activity: Activity) -> list[str]:
    return [ledger.label for ledger in ledgers(activity)]


def test_a_budget_of_everything_covers_everything() -> None:
    budget(name="all")

    assert names(run_of()) == ["all"]


def test_a_budget_of_a_task_covers_its_activities_and_their_children() -> None:
    budget(name="task", scope="task", task="research")
    root = run_of("research")

    assert names(root) == names(child_of(root, "lookup")) == ["task"]
    assert names(run_of("lookup")) == []


@pytest.mark.parametrize(("stored", "text"), [("acme", "acme"), (7, "7"), (7.0, "7"), (True, "true")])
def test_a_budget_of_metadata_compares_texts(stored: Any, text: str) -> None:
    budget(name="tenant", scope="metadata", metadata_key="tenant", metadata_value=text)

    assert names(run_of(tenant=stored)) == ["tenant"]
    assert names(run_of(tenant="other")) == names(run_of()) == names(run_of(tenant=None)) == []


def test_a_child_counts_against_the_budget_of_its_root_whatever_its_own_metadata() -> None:
    budget(name="tenant", scope="metadata", metadata_key="tenant", metadata_value="acme")
    root = run_of(tenant="acme")

    assert names(child_of(child_of(root, tenant="b"))) == ["tenant"]


def test_a_budget_of_one_activity() -> None:
    root, other = run_of(), run_of()
    budget(name="one", scope="activity", agent_id=root.agent_id, period="run")

    assert names(child_of(root)) == ["one"]
    assert names(other) == []


def test_a_budget_per_run_has_a_ledger_for_each_root() -> None:
    budget(name="run", period="run")
    first, second = run_of(), run_of()

    (own,), (of_child,), (of_other,) = ledgers(first), ledgers(child_of(first)), ledgers(second)

    assert own.pk == of_child.pk != of_other.pk
    assert own.activity_id == first.agent_id


def test_a_budget_per_day_has_a_ledger_for_each_day(monkeypatch: pytest.MonkeyPatch) -> None:
    found, activity = budget(period="day"), run_of()
    (today,) = ledgers(activity)
    later = timezone.now() + timedelta(days=1)
    monkeypatch.setattr("django_agentexec.budgets.applicable.timezone.now", lambda: later)

    (tomorrow,) = ledgers(activity)

    assert today.pk != tomorrow.pk
    assert set(found.ledgers.values_list("pk", flat=True)) == {today.pk, tomorrow.pk}


def test_inactive_budgets_do_not_apply_and_changes_in_this_process_apply_at_once() -> None:
    activity = run_of()
    found = budget(name="Acme")
    assert names(activity) == ["Acme"]

    found.is_active = False
    found.save()

    assert names(activity) == []


def test_a_budget_of_another_process_applies_when_the_rows_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    activity = run_of()
    assert names(activity) == []
    Budget.objects.bulk_create([Budget(name="late", limit=Decimal(1))])  # sends no signal
    assert names(activity) == []

    monkeypatch.setattr("django_agentexec.budgets.applicable.MAX_AGE", 0.0)

    assert names(activity) == ["late"]


def test_without_budgets_no_call_costs_a_query() -> None:
    activity = run_of()
    ledgers(activity)  # reads the table of budgets, for some seconds

    with CaptureQueriesContext(connection) as queries:
        assert ledgers(activity) == []

    assert len(queries) == 0


def test_the_ledgers_of_later_calls_cost_no_query() -> None:
    activity, attempt = run_of(), make_attempt()
    budget()
    attempt = make_attempt(activity.agent_id)
    async_to_sync(ledgers_for)(attempt)

    with CaptureQueriesContext(connection) as queries:
        async_to_sync(ledgers_for)(attempt)

    assert len(queries) == 0


def test_a_new_ledger_is_stored_once_and_keeps_its_consumption() -> None:
    budget()
    activity = run_of()
    (ledger,) = ledgers(activity)
    BudgetLedger.objects.update(spent=Decimal(1))

    table.known = set()  # as in another process
    ledgers(activity)

    assert BudgetLedger.objects.get(pk=ledger.pk).spent == 1


def test_the_budget_of_a_task_limits_each_run_with_its_children(journal: Journal) -> None:
    async def parent(agent_id: UUID, context: Work, attempt: Attempt) -> str:
        (found,) = await attempt.agather(attempt.aspawn(paid_work, context.model_copy(update={"key": "1"})))
        result = await OpenAIRunner(agent_id).run(paid_agent(context, agent_id, 0), "Go.")
        return f"{found}, {result.final_output}"

    handle = task("parent_of_paid", budget=Decimal("0.08"))(parent).enqueue(Work(journal=journal.path))
    drain()  # two calls of the child are made, that of the parent is not
    waiting = Activity.objects.get(pk=handle.agent_id)
    assert waiting.waiting_for == "budget"
    ledger = BudgetLedger.objects.get()
    assert (ledger.label, ledger.spent, ledger.activity_id) == ("parent_of_paid", Decimal("0.06"), handle.agent_id)
    assert waiting.run_after is None  # nothing but a higher limit ends the wait


def test_the_budget_of_a_runner_limits_each_of_its_runs(journal: Journal) -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, budget=RunBudget("0.06"))
        work = Work(journal=journal.path)
        for steps in (1, 1, 2):
            result = await runner.run(paid_agent(work, agent_id, steps), "Go.")
        return str(result.final_output)

    handle = task("runs", max_retries=0)(handler).enqueue(Empty())
    drain()
    row = Activity.objects.get(pk=handle.agent_id)
    assert (row.status, row.waiting_for) == (Status.RUNNING, "budget")
    assert [ledger.spent for ledger in BudgetLedger.objects.order_by("created_at")] == [Decimal("0.06")] * 3


def test_a_retry_goes_on_with_what_earlier_attempts_have_left(journal: Journal) -> None:
    budget(period="run", action="fail", limit="0.04")
    handle = paid_work.enqueue(Work(journal=journal.path, key="1"))
    drain()
    row = Activity.objects.get()
    assert row.status == Status.ERROR
    assert row.error.startswith("BudgetExceeded: Budget Acme: the next call needs up to $0.03, $0.01 of $0.04 is left.")
    assert row.retries == 0  # a retry would fail as well

    Budget.objects.update(limit=Decimal("0.06"))
    handle.retry()
    drain()

    assert Activity.objects.get().status == Status.COMPLETE
    assert BudgetLedger.objects.get().spent == Decimal("0.06")  # the first call was not repeated


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scope": "task"}, "task"),
        ({"scope": "metadata", "metadata_key": "tenant"}, "metadata_value"),
        ({"scope": "activity"}, "agent_id"),
        ({"scope": "all", "task": "research"}, "task"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"limit": Decimal(-1)}, "limit"),
        ({"name": "a\0b"}, "name"),
    ],
)
def test_contradictions_are_refused_by_the_form(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Budget(**{"name": "Acme", "limit": Decimal(1), **values}).full_clean()

    assert field in refusal.value.message_dict
