"""Reservation and settlement in the transaction that writes a call."""

from __future__ import annotations

from decimal import Decimal
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_agentexec import StaleAttempt
from django_agentexec.activity.store import apply
from django_agentexec.budgets.charges import Charge, Crossing, Entry, OverBudget
from django_agentexec.budgets.waits import release_stale
from django_agentexec.calls.operations import BeginCall, FinishCall
from django_agentexec.models import (
    Activity,
    AgentCall,
    Budget,
    BudgetLedger,
    BudgetReservation,
    CallKind,
    CallState,
    Status,
)
from django_agentexec.money import MOST
from tests.support.activity_rows import row, running_activity
from tests.support.budget_rows import budget, spent

pytestmark = pytest.mark.django_db(transaction=True)

CENT = Decimal("0.01")


def ledger_of(limit: str = "0.10", **values: object) -> BudgetLedger:
    """Return a stored ledger of a new budget."""
    found = budget(limit, **values)
    return BudgetLedger.objects.create(id=uuid4(), budget=found, label="Acme", period="2026-11", unit="money")


def call_of(agent_id: UUID, ordinal: int = 0) -> AgentCall:
    return AgentCall(activity_id=agent_id, kind=CallKind.MODEL, ordinal=ordinal, fence=1)


def charge(agent_id: UUID, ledger: BudgetLedger, amount: Decimal) -> Charge:
    return Charge(agent_id, 1, [Entry(ledger.pk, amount)])


def begin(agent_id: UUID, ledger: BudgetLedger, amount: Decimal, ordinal: int = 0) -> BeginCall:
    call = call_of(agent_id, ordinal)
    return BeginCall(agent_id=agent_id, fence=1, new=[call], charge=charge(agent_id, ledger, amount))


def finish(begun: BeginCall, cost: Decimal | None, tokens: int = 0) -> FinishCall:
    (call,) = begun.new
    call.state = CallState.DONE
    assert begun.charge is not None
    begun.charge.set_spent(cost, tokens)
    return FinishCall(agent_id=begun.agent_id, fence=1, changed=[call], cost=cost, charge=begun.charge)


def test_calls_of_one_batch_share_what_is_left() -> None:
    ledger = ledger_of("0.10")
    operations = [begin(running_activity(), ledger, 3 * CENT) for _ in range(4)]

    outcomes = apply(operations)

    assert [isinstance(each, Activity) for each in outcomes] == [True, True, True, False]
    assert isinstance(outcomes[3], OverBudget)
    assert spent() == (0, Decimal("0.09"))
    assert AgentCall.objects.count() == 3  # the refused call was not written


def test_a_charge_to_several_budgets_is_reserved_in_all_or_in_none() -> None:
    wide, narrow = ledger_of("10"), ledger_of("0.02")
    agent_id = running_activity()
    both = Charge(agent_id, 1, [Entry(wide.pk, 3 * CENT), Entry(narrow.pk, 3 * CENT)])

    (outcome,) = apply([BeginCall(agent_id=agent_id, fence=1, new=[call_of(agent_id)], charge=both)])

    assert isinstance(outcome, OverBudget)
    assert outcome.ledger.pk == narrow.pk
    wide.refresh_from_db()
    assert (wide.reserved, BudgetReservation.objects.count()) == (0, 0)


def test_a_settlement_replaces_the_estimate_by_the_cost() -> None:
    ledger = ledger_of()
    begun = begin(running_activity(), ledger, 3 * CENT)
    apply([begun])

    apply([finish(begun, CENT)])

    assert spent() == (CENT, 0)
    assert not BudgetReservation.objects.exists()


def test_an_unknown_cost_counts_as_the_estimate() -> None:
    begun = begin(running_activity(), ledger_of(), 3 * CENT)
    apply([begun])

    apply([finish(begun, None)])

    assert spent() == (3 * CENT, 0)


def test_a_failed_call_costs_nothing() -> None:
    begun = begin(running_activity(), ledger_of(), 3 * CENT)
    apply([begun])

    apply([FinishCall(agent_id=begun.agent_id, fence=1, changed=begun.new, charge=begun.charge, is_progress=False)])

    assert spent() == (0, 0)


def test_a_repeated_call_of_a_batch_gives_back_before_it_reserves_again() -> None:
    ledger = ledger_of("0.03")
    first = begin(running_activity(), ledger, 3 * CENT)
    apply([first])
    again = charge(first.agent_id, ledger, 3 * CENT)

    outcomes = apply(
        [
            FinishCall(agent_id=first.agent_id, fence=1, changed=first.new, charge=first.charge),
            BeginCall(agent_id=first.agent_id, fence=1, again=first.new, charge=again),
        ]
    )

    assert [type(each) for each in outcomes] == [Activity, Activity]
    assert spent() == (0, 3 * CENT)


def test_an_attempt_that_lost_its_activity_reserves_nothing() -> None:
    ledger, agent_id = ledger_of(), running_activity()
    Activity.objects.filter(pk=agent_id).update(fence=2)

    (outcome,) = apply([begin(agent_id, ledger, CENT)])

    assert isinstance(outcome, StaleAttempt)
    assert spent() == (0, 0)


def test_a_batch_that_is_written_again_after_an_error_reserves_once() -> None:
    operation = begin(running_activity(), ledger_of(), 3 * CENT)

    with (
        patch.object(transaction, "on_commit", side_effect=ValueError("before the commit")),
        pytest.raises(ValueError, match="before the commit"),
    ):
        apply([operation])
    assert spent() == (0, 0)
    apply([operation])

    assert spent() == (0, 3 * CENT)


def test_a_deleted_budget_limits_nothing() -> None:
    ledger = ledger_of("0.01")
    Budget.objects.all().delete()

    (outcome,) = apply([begin(running_activity(), ledger, 3 * CENT)])

    assert isinstance(outcome, Activity)


def test_an_inactive_budget_and_one_that_notifies_count_without_refusing() -> None:
    for values in ({"is_active": False}, {"action": "notify"}):
        ledger = ledger_of("0.01", **values)
        begun = begin(running_activity(), ledger, 3 * CENT)
        apply([begun])
        apply([finish(begun, 3 * CENT)])
        ledger.refresh_from_db()
        assert (ledger.spent, ledger.reserved) == (3 * CENT, 0)


def test_each_threshold_is_reached_once() -> None:
    ledger = ledger_of("0.10")
    reached = []
    for ordinal, cost in enumerate(("0.04", "0.02", "0.02", "0.02")):
        begun = begin(running_activity(), ledger, Decimal(cost), ordinal)
        apply([begun])
        apply([finish(begun, Decimal(cost))])
        assert begun.charge is not None
        reached.append([crossing.threshold for crossing in begun.charge.crossings])

    assert reached == [[], [50], [80], [100]]
    assert isinstance(begun.charge.crossings[0], Crossing)


@pytest.mark.parametrize(
    "change",
    [
        {"status": Status.QUEUED},
        {"status": Status.ERROR},
        {"status": Status.CANCELED},
        {"fence": 2},
        {"blocking_child_id": UUID(int=1)},
    ],
    ids=["released", "failed", "canceled", "claimed again", "suspended"],
)
def test_a_reservation_ends_with_its_attempt(change: dict[str, object]) -> None:
    begun = begin(running_activity(), ledger_of(), 3 * CENT)
    apply([begun])
    assert release_stale() == 0

    Activity.objects.filter(pk=begun.agent_id).update(**change)

    assert release_stale() == 1
    assert spent() == (0, 0)


def test_a_reservation_of_a_deleted_activity_is_released() -> None:
    begun = begin(running_activity(), ledger_of(), 3 * CENT)
    apply([begun])

    Activity.objects.all().delete()

    assert release_stale() == 1


def test_a_call_that_ends_after_its_reservation_was_released_is_counted_once() -> None:
    begun = begin(running_activity(), ledger_of(), 3 * CENT)
    apply([begun])
    Activity.objects.update(status=Status.CANCELED)
    release_stale()

    apply([finish(begun, 2 * CENT)])

    assert spent() == (2 * CENT, 0)
    assert row(begun.agent_id).status == Status.CANCELED


def test_a_batch_without_charges_costs_no_further_query() -> None:
    plain = [
        BeginCall(agent_id=agent_id, fence=1, new=[call_of(agent_id)])
        for agent_id in (running_activity(), running_activity())
    ]
    budget("1")

    with CaptureQueriesContext(
        connection,
    ) as queries:
        apply(plain)

    assert not [query for query in queries if "budget" in query["sql"]]


def test_a_batch_with_charges_reads_ledgers_and_budgets_once() -> None:
    ledger = ledger_of("10")
    operations = [begin(running_activity(), ledger, CENT) for _ in range(10)]

    with CaptureQueriesContext(connection) as queries:
        apply(operations)

    reads = [query["sql"] for query in queries if "budget" in query["sql"] and query["sql"].startswith("SELECT")]
    assert len(reads) <= 2 or connection.vendor == "postgresql"
    assert spent() == (0, Decimal("0.10"))


def test_a_budget_that_only_notifies_counts_no_more_than_the_database_holds() -> None:
    """More ended every call that the budget covers, on PostgreSQL with "numeric field overflow"."""
    ledger = ledger_of("10", action="notify")
    BudgetLedger.objects.update(spent=MOST - 1)
    begun = begin(running_activity(), ledger, Decimal(10) ** 12)

    assert isinstance(apply([begun])[0], Activity)
    assert isinstance(apply([finish(begun, None)])[0], Activity)
    assert spent() == (MOST.normalize(), 0)
