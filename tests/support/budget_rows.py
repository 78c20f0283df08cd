"""Helpers for tests of budgets: prices, rows and what is left of them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from django_agentexec.models import Activity, AgentCall, Budget, BudgetLedger, BudgetReservation, ModelPrice


def set_price(pattern: str = "paid", output: str = "30", input: str = "0", cached: str | None = None) -> ModelPrice:
    """Set the price of a model; by default 0.03 dollars for a call of `tests.testapp.paid_agent.Paid`."""
    return ModelPrice.objects.create(
        pattern=pattern,
        valid_from=date(2020, 1, 1),
        input_price=Decimal(input),
        cached_price=None if cached is None else Decimal(cached),
        output_price=Decimal(output),
    )


def budget(limit: str = "0.10", **values: Any) -> Budget:
    """Return a new budget, by default of everything and of each month."""
    return Budget.objects.create(**{"name": "Acme", "limit": Decimal(limit), **values})


def spent(found: Budget | None = None) -> tuple[Decimal, Decimal]:
    """Return what was spent and what is reserved of the only ledger (of a budget)."""
    rows = BudgetLedger.objects.all() if found is None else found.ledgers.all()
    ledger = rows.get()
    total = sum((each.amount for each in BudgetReservation.objects.filter(ledger=ledger)), Decimal(0))
    assert ledger.reserved == total, "the ledger differs from its reservations"
    return ledger.spent.normalize(), ledger.reserved.normalize()


def assert_nothing_leaks() -> None:
    """Check that nothing is reserved, and that activities cost what their calls have cost."""
    assert not BudgetReservation.objects.exists()
    assert all(ledger.reserved == 0 for ledger in BudgetLedger.objects.all())
    for row in Activity.objects.filter(calls__isnull=False).distinct():  # others are not durable
        billed = AgentCall.objects.filter(activity=row).billed()
        assert (row.cost or 0) == sum(call.cost or 0 for call in billed)
