"""The budgets with what was spent of them, for REST, the terminal, the admin and metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Count
from django.utils import timezone
from pydantic import BaseModel

from ..activity.store import database
from ..models import Budget, BudgetAction, BudgetLedger, BudgetPeriod, BudgetScope, BudgetUnit, BudgetWait
from ..money import Money
from ..registry import registry
from .applicable import key_of
from .periods import Period, period_at
from .waits import still_waiting

if TYPE_CHECKING:
    from ..tasks.definition import AnyTask

logger = logging.getLogger(__name__)


class BudgetSchema(BaseModel):
    """A budget with its current period."""

    id: int | None
    """Null: declared in the code of a task."""
    name: str
    scope: BudgetScope
    task: str
    metadata_key: str
    metadata_value: str
    agent_id: UUID | None
    period: BudgetPeriod
    time_zone: str
    limit: Money
    """US dollars or tokens, in the current period."""
    unit: BudgetUnit
    action: BudgetAction
    is_active: bool
    current: str | None
    """The current day or month; null if the limit applies to each run."""
    ends_at: datetime | None
    spent: Money | None
    """In the current period; null if the limit applies to each run."""
    reserved: Money | None
    """For calls in progress."""
    percentage: int | None
    """What was spent, in percent of the limit."""
    waiting: int
    """The activities that wait for this budget."""


def consumption(budgets: Sequence[Budget]) -> list[BudgetSchema]:
    """Return budgets with the consumption of their current periods. Two queries."""
    if not budgets:
        return []
    now, using = timezone.now(), database()
    periods = {
        budget.pk: period_at(budget.period, budget.time_zone, now)
        for budget in budgets
        if budget.period != BudgetPeriod.RUN
    }
    keys = {budget.pk: key_of(budget, periods[budget.pk].name) for budget in budgets if budget.pk in periods}
    ledgers = BudgetLedger.objects.using(using).in_bulk(list(keys.values()))
    waits = BudgetWait.objects.using(using).filter(still_waiting(), ledger__budget__in=[each.pk for each in budgets])
    waiting = dict(waits.order_by().values_list("ledger__budget").annotate(number=Count("agent_id", distinct=True)))
    return [
        _schema(budget, periods.get(budget.pk), ledgers.get(keys.get(budget.pk)), waiting.get(budget.pk, 0))
        for budget in budgets
    ]


def declared_budgets() -> list[BudgetSchema]:
    """Return the budgets that tasks declare (`@task(budget=...)`), by name. One query, none without such tasks."""
    declared = {task.name: task.budget for task in _tasks() if task.budget is not None}
    if not declared:
        return []
    waits = BudgetWait.objects.using(database()).filter(still_waiting(), ledger__budget=None)
    waits = waits.filter(ledger__label__in=list(declared)).order_by()
    waiting = dict(waits.values_list("ledger__label").annotate(number=Count("agent_id", distinct=True)))
    return [
        BudgetSchema(
            id=None,
            name=name,
            scope=BudgetScope.TASK,
            task=name,
            metadata_key="",
            metadata_value="",
            agent_id=None,
            period=BudgetPeriod.RUN,
            time_zone="",
            limit=Decimal(budget.limit),
            unit=BudgetUnit(budget.unit),
            action=BudgetAction(budget.action),
            is_active=True,
            current=None,
            ends_at=None,
            spent=None,
            reserved=None,
            percentage=None,
            waiting=waiting.get(name, 0),
        )
        for name, budget in sorted(declared.items())
    ]


def _tasks() -> Iterable[AnyTask]:
    try:
        return list(registry)
    except Exception:  # a module of tasks may raise anything
        text = "The modules of tasks cannot be imported; only the budgets of known tasks are listed."
        logger.warning(text, exc_info=True)
        return registry.known()


def _schema(budget: Budget, period: Period | None, ledger: BudgetLedger | None, waiting: int) -> BudgetSchema:
    """Return a budget with its consumption: nothing where it has no ledger yet, unknown where it has one per run."""
    names = ("id", "name", "scope", "task", "metadata_key", "metadata_value", "agent_id", "period", "time_zone")
    values = {name: getattr(budget, name) for name in (*names, "limit", "unit", "action", "is_active")}
    nothing = None if period is None else 0
    values |= {"spent": nothing, "reserved": nothing, "percentage": nothing}
    if ledger is not None:
        ledger.budget = budget
        values |= {name: getattr(ledger, name) for name in ("limit", "spent", "reserved", "percentage")}
    current, ends_at = (period.name, period.ends_at) if period is not None else (None, None)
    return BudgetSchema(**values, current=current, ends_at=ends_at, waiting=waiting)
