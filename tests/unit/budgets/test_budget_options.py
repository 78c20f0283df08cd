"""Options and periods of budgets."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from django_agentexec import InvalidOption, OpenAIRunner, RunBudget, TaskDefinitionError, task
from django_agentexec.budgets.estimates import PossibleModel, estimates
from django_agentexec.budgets.options import as_run_budget
from django_agentexec.budgets.periods import period_at
from django_agentexec.models import BudgetAction, BudgetUnit
from django_agentexec.tasks import registry
from tests.support.contexts import Empty


def handler(agent_id: UUID, context: Empty) -> None: ...


@pytest.mark.parametrize("given", [Decimal("0.50"), "0.50", {"limit": "0.5"}, RunBudget("0.5")])
def test_an_amount_is_a_budget_in_dollars_that_suspends(given: Any) -> None:
    assert as_run_budget(given) == RunBudget(Decimal("0.5"), BudgetUnit.MONEY, BudgetAction.SUSPEND)


def test_no_budget() -> None:
    assert as_run_budget(None) is None


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (0.5, "0.5"),
        (True, "True"),
        (0, "0"),
        ("-1", "'-1'"),
        ("much", "'much'"),
        (Decimal("NaN"), "NaN"),
        (Decimal("1e12"), "1E"),
        (Decimal("0.00000000001"), "1E-11"),
        ({"limit": 1, "units": "tokens"}, "units"),
        ({}, "'limit'"),
        ({"limit": 1, "unit": "euros"}, "'euros'"),
        ({"limit": 1, "action": "explode"}, "'explode'"),
        ([], r"\[\]"),
    ],
)
def test_an_impossible_budget_is_refused_early(given: Any, names: str) -> None:
    with pytest.raises(InvalidOption, match=names):
        as_run_budget(given)
    with pytest.raises(TaskDefinitionError, match="Task 'spends'"):
        task("spends", budget=given)(handler)
    with pytest.raises(InvalidOption, match=names):
        OpenAIRunner(UUID(int=1), budget=given)


def test_a_task_has_its_budget() -> None:
    try:
        assert task("spends", budget=RunBudget(200_000, unit="tokens", action="fail"))(handler).budget == RunBudget(
            Decimal(200_000), BudgetUnit.TOKENS, BudgetAction.FAIL
        )
    finally:
        registry.unregister("spends")


def test_a_runner_that_records_nothing_has_no_budget() -> None:
    with pytest.raises(InvalidOption, match="needs durable=True"):
        OpenAIRunner(UUID(int=1), budget="0.5", durable=False)


@pytest.mark.parametrize(
    ("kind", "zone", "now", "name", "ends_at"),
    [
        ("day", "", (2026, 11, 28, 12), "2026-11-28", (2026, 11, 29, 0)),
        ("day", "Europe/Berlin", (2026, 11, 28, 23, 30), "2026-11-29", (2026, 11, 29, 23)),
        ("day", "Europe/Berlin", (2026, 3, 29, 12), "2026-03-29", (2026, 3, 29, 22)),  # 23 hours long
        ("day", "Europe/Berlin", (2026, 10, 25, 12), "2026-10-25", (2026, 10, 25, 23)),  # 25 hours long
        ("month", "", (2026, 11, 28, 12), "2026-11", (2026, 12, 1, 0)),
        ("month", "", (2026, 12, 31, 23, 59), "2026-12", (2027, 1, 1, 0)),
        ("month", "America/New_York", (2026, 12, 1, 2), "2026-11", (2026, 12, 1, 5)),
        ("day", "Mars/Olympus", (2026, 11, 28, 12), "2026-11-28", (2026, 11, 29, 0)),  # that of the settings
    ],
)
def test_the_period_of_a_time(kind: str, zone: str, now: tuple[int, ...], name: str, ends_at: tuple[int, ...]) -> None:
    found = period_at(kind, zone, datetime(*now, tzinfo=UTC))  # type: ignore[arg-type,misc]

    assert found.name == name
    assert found.ends_at == datetime(*ends_at, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_an_estimate_counts_the_whole_request_and_the_longest_answer_of_each_model() -> None:
    small, unlimited = estimates([PossibleModel("a", "", 50), PossibleModel("b")], ["x" * 300])
    [stored] = estimates([PossibleModel("a")], [], earlier_tokens=7_000)

    assert (small.model, small.input_tokens, small.output_tokens) == ("a", 100, 50)
    assert (unlimited.model, unlimited.input_tokens, unlimited.output_tokens) == ("b", 100, 4_096)
    assert stored.input_tokens == 7_000  # the provider has stored the conversation
