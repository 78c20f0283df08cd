"""A budget suspends an activity before the call that would exceed it, and resumes it without repeating a call."""

from __future__ import annotations

from decimal import Decimal

import pytest

from django_agentexec.budgets.waits import resume_waiting
from django_agentexec.models import Activity, ActivityLog, Budget, BudgetWait, Status
from django_agentexec.testing import drain
from tests.e2e.journal import Journal
from tests.support.activity_rows import messages
from tests.support.budget_rows import budget, spent
from tests.testapp.budgets import paid_work
from tests.testapp.work import Work

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_waits_before_the_call_that_would_exceed_the_budget_and_repeats_none(journal: Journal) -> None:
    limit = budget("0.10")
    agent_id = paid_work.enqueue(Work(journal=journal.path, key="4")).agent_id

    drain()

    waiting = Activity.objects.get()
    assert (waiting.status, waiting.waiting_for, waiting.is_suspended) == (Status.RUNNING, "budget", True)
    assert [event.event for event in journal.events() if event.event.startswith("call")] == [
        "call 0",
        "call 1",
        "call 2",
    ]
    assert spent() == (Decimal("0.09"), 0)
    assert "Budget Acme: the next call needs up to $0.03, $0.01 of $0.10 is left." in messages(agent_id)
    assert waiting.latest_log_message == "Waiting for a budget."  # tenants do not read of budgets of the whole site
    wait = ActivityLog.objects.get(message__contains="the next call needs")
    assert wait.public_message == "Waiting for a budget."
    assert waiting.run_after is not None  # the end of the month
    assert BudgetWait.objects.get().amount == Decimal("0.03")

    assert resume_waiting() == 0
    assert drain() == 0
    Budget.objects.filter(pk=limit.pk).update(limit=Decimal("0.20"))
    assert resume_waiting() == 1
    drain()

    ended = Activity.objects.get()
    assert (ended.status, ended.result, ended.attempt) == (Status.COMPLETE, "4 steps", 1)
    calls = [event.event for event in journal.events() if event.event.startswith("call")]
    assert calls == ["call 0", "call 1", "call 2", "call 3", "call 4"]  # none twice
    assert len(journal.names("step")) == 4
    assert spent() == (Decimal("0.15"), 0)
    assert ended.cost == Decimal("0.15")
    assert not BudgetWait.objects.exists()
