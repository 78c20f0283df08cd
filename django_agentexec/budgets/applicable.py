"""The budgets that apply to an activity: rows of `Budget`, and budgets that the code of tasks and runners declares.

Each process keeps the active rows in memory for `MAX_AGE` seconds, so that calls without a budget cost no query. Only
the question which budgets exist is answered from memory; limit, action and consumption are read under the lock of the
ledger. A new budget therefore applies in every process within `MAX_AGE`, and a changed limit at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from ..activity.store import database
from ..current import OwningAttempt
from ..exceptions import UnknownTask
from ..expressions import text_form
from ..forks import reset_after_fork
from ..logs import ThrottledLogger
from ..models import Activity, Budget, BudgetLedger, BudgetPeriod, BudgetScope
from ..registry import registry
from .options import RunBudget
from .periods import period_at

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)

MAX_AGE = 5.0  # seconds
MAX_ROWS = 10_000
MAX_DEPTH = 100  # ancestors of an activity
MAX_KNOWN = 10_000  # keys of ledgers that a process knows to exist
_NAMESPACE = UUID("0192f0a4-7f5e-7c3b-9d53-7a6a8a1f0c55")
_CHAIN = "budget chain"  # its name among the values of the attempt


@dataclass(frozen=True, slots=True)
class Relative:
    """An activity, or one of its ancestors."""

    agent_id: UUID
    task: str
    metadata: Mapping[str, Any]


class BudgetTable:
    """The active budgets in this process. Thread-safe."""

    def __init__(self) -> None:
        self.reset()
        reset_after_fork(self.reset)

    def reset(self, **_: object) -> None:
        """Forget the rows, so that the next call reads them."""
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self.budgets: Sequence[Budget] = ()
        self.known: set[UUID] = set()
        """Keys of ledgers that exist."""

    @property
    def is_stale(self) -> bool:
        """Whether the rows must be read again."""
        return self._read_at is None or time.monotonic() - self._read_at >= MAX_AGE

    def refresh(self) -> None:
        """Read the rows if they are stale; one query. Without the database, those known so far remain in use."""
        with self._lock:
            if not self.is_stale:
                return
            try:
                self.budgets = list(Budget.objects.using(database()).filter(is_active=True).order_by("id")[:MAX_ROWS])
            except (DatabaseError, InterfaceError) as error:
                _log.warn("Could not read the budgets; those known so far remain in use.", error)
            self._read_at = time.monotonic()


table = BudgetTable()


async def ledgers_for(attempt: OwningAttempt, run: RunBudget | None = None, path: str = "") -> list[BudgetLedger]:
    """Return the ledgers that the calls of an attempt are charged to now, and make sure that they are stored.

    `run` is the budget of the run of an agent at `path`. Costs no query if there are no budgets.
    """
    if table.is_stale:
        await sync_to_async(table.refresh)()
    ledgers: list[BudgetLedger] = []
    if table.budgets or any(task.budget for task in registry.known()):
        now = timezone.now()
        chain = await _chain_of(attempt)
        ledgers = [each for budget in table.budgets if (each := _ledger_of(budget, chain, now))]
        ledgers += [each for relative in chain if (each := _ledger_of_task(relative))]
    if run is not None:
        label = f"OpenAIRunner {path}".rstrip()
        ledgers.append(_own_ledger(f"runner:{attempt.agent_id}:{path}", label, run, attempt.agent_id))
    if any(ledger.pk not in table.known for ledger in ledgers):
        await sync_to_async(_store)(ledgers)
    return ledgers


def _store(ledgers: Sequence[BudgetLedger]) -> None:
    new = sorted((each for each in ledgers if each.pk not in table.known), key=lambda each: each.pk)
    BudgetLedger.objects.using(database()).bulk_create(new, ignore_conflicts=True)
    if len(table.known) > MAX_KNOWN:
        table.known = set()
    table.known.update(each.pk for each in ledgers)


async def _chain_of(attempt: OwningAttempt) -> list[Relative]:
    """Return the activity of an attempt and its ancestors, up to the root; read once per attempt."""
    values = attempt.root.locals
    if _CHAIN not in values:
        values[_CHAIN] = await sync_to_async(_read_chain)(attempt.agent_id)
    chain: list[Relative] = values[_CHAIN]
    return chain


def _read_chain(agent_id: UUID) -> list[Relative]:
    rows = Activity.objects.using(database()).only("agent_id", "agent_type", "metadata", "parent_id")
    chain: list[Relative] = []
    following: UUID | None = agent_id
    while following is not None and len(chain) < MAX_DEPTH:
        row = rows.filter(agent_id=following).first()
        if row is None:
            break
        chain.append(Relative(row.agent_id, row.agent_type, row.metadata))
        following = row.parent_id
    return chain


def _ledger_of(budget: Budget, chain: Sequence[Relative], now: datetime) -> BudgetLedger | None:
    """Return the ledger of a budget for an activity, or None if the budget does not cover it."""
    covered = [each for each in chain if _covers(budget, each)]
    if not covered:
        return None
    activity_id, ends_at = None, None
    if budget.period == BudgetPeriod.RUN:
        # The run of the topmost activity that it covers; of everything, and of a tenant, that of the root.
        activity_id = covered[-1].agent_id
        name = str(activity_id)
    else:
        period = period_at(budget.period, budget.time_zone, now)
        name, ends_at = period.name, period.ends_at
    ledger = BudgetLedger(
        id=key_of(budget, name),
        label=budget.name,
        period=name,
        activity_id=activity_id,
        ends_at=ends_at,
        unit=budget.unit,
    )
    ledger.budget = budget
    return ledger


def key_of(budget: Budget, period: str) -> UUID:
    """Return the key of the ledger of a budget in a period: a day, a month or the id of a run."""
    return uuid5(_NAMESPACE, f"budget:{budget.pk}:{budget.unit}:{period}")


def _covers(budget: Budget, relative: Relative) -> bool:
    match budget.scope:
        case BudgetScope.ALL:
            return True
        case BudgetScope.TASK:
            return relative.task == budget.task
        case BudgetScope.METADATA:
            return text_form(relative.metadata.get(budget.metadata_key)) == budget.metadata_value
        case BudgetScope.ACTIVITY:
            return relative.agent_id == budget.agent_id
    return False


def _ledger_of_task(relative: Relative) -> BudgetLedger | None:
    try:
        declared = registry.get(relative.task).budget
    except UnknownTask:
        return None
    if declared is None:
        return None
    return _own_ledger(f"task:{relative.agent_id}", relative.task, declared, relative.agent_id)


def _own_ledger(name: str, label: str, declared: RunBudget, agent_id: UUID) -> BudgetLedger:
    """Return the ledger of a budget that code declares. Once stored, its limit is that of the row."""
    return BudgetLedger(
        id=uuid5(_NAMESPACE, name),
        label=label[:200],
        period=str(agent_id),
        activity_id=agent_id,
        own_limit=declared.limit,
        unit=declared.unit,
        action=declared.action,
    )


def install() -> None:
    """Let changes of budgets in this process take effect at once; called when the app is ready."""
    for signal in (post_save, post_delete):
        signal.connect(table.reset, Budget, dispatch_uid="agentexec.budgets")
