"""`Charge`: what one call of a model costs its budgets. Reserved with the start of the call, settled with its end.

Both happen in the transaction that writes the call, usually the worker's group commit: the ledgers of a batch are
locked in the order of their keys, compared with their limits and changed in memory, and written together with the rest
of the batch. So any number of processes stays within a limit, and a batch without charges costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from ..bulk_sql import Insert, LockWait, Update, lock_rows
from ..conf import conf
from ..exceptions import InvalidTransition
from ..models import BUDGET_THRESHOLDS, Budget, BudgetAction, BudgetLedger, BudgetReservation, BudgetUnit
from ..money import capped

if TYPE_CHECKING:
    from .estimates import Estimate

LOCKED_FIELDS = (
    *("budget", "label", "period", "activity", "ends_at", "own_limit", "unit", "action"),
    *("spent", "reserved", "notified", "created_at"),
)
# One set for reservations and settlements, so that the changes of a batch are one statement.
CHANGED_FIELDS = ("notified", "reserved", "spent")


class OverBudget(InvalidTransition):
    """A call would exceed the limit of a ledger, or its price is unknown (`amount` is None); nothing was written."""

    def __init__(self, ledger: BudgetLedger, amount: Decimal | None, unpriced: Estimate | None = None) -> None:
        super().__init__(f"The budget {ledger} cannot cover {amount} {ledger.unit}.", "over budget")
        self.ledger = ledger
        self.amount = amount
        self.unpriced = unpriced
        """The estimate for the model without a price."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The part of a charge that concerns one ledger."""

    ledger_id: UUID
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Crossing:
    """A ledger that has reached a threshold."""

    ledger: BudgetLedger
    threshold: int


@dataclass(eq=False)
class Charge:
    """What one call of a model costs each of its budgets."""

    agent_id: UUID
    fence: int
    entries: Sequence[Entry]
    """What the call reserves: its estimated cost."""
    spent: Mapping[str, Decimal | None] = field(default_factory=dict)
    """What the call has cost by unit; None: unknown, which counts as the estimate."""
    reservations: list[BudgetReservation] = field(default_factory=list)
    crossings: list[Crossing] = field(default_factory=list)
    """The thresholds that its settlement has reached, for the log and the signal."""
    _ledgers: Ledgers | None = field(default=None, repr=False)

    def bind(self, ledgers: Ledgers) -> None:
        """Use these locked rows; called at the beginning of each try to write the batch."""
        self._ledgers = ledgers
        self.crossings = []

    def set_spent(self, cost: Decimal | None, tokens: int) -> None:
        """Set what the call has cost, before it is settled. A failed call has cost nothing."""
        self.spent = {BudgetUnit.MONEY: cost, BudgetUnit.TOKENS: Decimal(tokens) if tokens else None}

    def of_try(self) -> Charge:
        """Return a charge of the same budgets for a failed try of the call, which reserves nothing."""
        return Charge(self.agent_id, self.fence, self.entries)

    def reserve(self) -> None:
        """Reserve the estimated cost. Raises `OverBudget`, with nothing changed, if a ledger cannot cover it."""
        rows, ledgers = self._rows(), self._ledgers
        found = [(rows[entry.ledger_id], entry.amount) for entry in self.entries if entry.ledger_id in rows]
        for ledger, amount in found:
            if ledger.effect != BudgetAction.NOTIFY and amount > ledger.available:
                raise OverBudget(ledger, amount)
        self.reservations = []
        for ledger, amount in found:
            amount = capped(amount)
            ledger.reserved = capped(ledger.reserved + amount)
            self.reservations.append(
                BudgetReservation(ledger_id=ledger.pk, agent_id=self.agent_id, fence=self.fence, amount=amount)
            )
        if ledgers is not None:
            ledgers.open.update(each.pk for each in self.reservations)  # the call may end in the same batch

    def settle(self) -> None:
        """Replace the reservations by what was spent. A reservation that was released meanwhile is not given back."""
        rows = self._rows()
        assert self._ledgers is not None
        reservations = {each.ledger_id: each for each in self.reservations}
        for entry in self.entries:
            ledger, reservation = rows.get(entry.ledger_id), reservations.get(entry.ledger_id)
            if ledger is None:
                continue  # deleted with its budget
            if reservation is not None and reservation.pk in self._ledgers.open:
                ledger.reserved = max(Decimal(0), ledger.reserved - reservation.amount)
                self._ledgers.closed.add(reservation.pk)
            spent = self.spent.get(ledger.unit, Decimal(0))
            ledger.spent = capped(ledger.spent + (entry.amount if spent is None else spent))
            self.crossings += crossings_of(ledger)

    def writes(self, *, inserts: bool) -> list[Insert | Update]:
        """Return the changed ledgers and, with `inserts`, the new reservations."""
        rows = self._rows()
        changed = [rows[each.ledger_id] for each in self.entries if each.ledger_id in rows]
        writes: list[Insert | Update] = [Update(BudgetLedger, changed, CHANGED_FIELDS)] if changed else []
        if inserts and self.reservations:
            writes.append(Insert(BudgetReservation, self.reservations))
        return writes

    def _rows(self) -> Mapping[UUID, BudgetLedger]:
        return self._ledgers.rows if self._ledgers is not None else {}


class Ledgers:
    """The ledgers of a batch, locked until the end of its transaction, after the rows of its activities."""

    def __init__(self, charges: Sequence[Charge], using: str) -> None:
        self._using = using
        self.rows = locked_ledgers({entry.ledger_id for charge in charges for entry in charge.entries}, using)
        keys = [each.pk for charge in charges for each in charge.reservations]
        reservations = BudgetReservation.objects.using(using).filter(pk__in=keys)
        self.open: set[UUID] = set(reservations.values_list("pk", flat=True)) if keys else set()
        """The reservations that no other process has released."""
        self.closed: set[UUID] = set()
        for charge in charges:
            charge.bind(self)

    def delete_settled(self) -> None:
        """Delete the reservations that were settled."""
        if self.closed:
            BudgetReservation.objects.using(self._using).filter(pk__in=self.closed).delete()


def locked_ledgers(keys: Iterable[UUID], using: str) -> dict[UUID, BudgetLedger]:
    """Return the ledgers with these keys, locked in the order of their keys, each with its budget."""
    found = lock_rows(BudgetLedger, sorted(keys), LOCKED_FIELDS, using, wait=LockWait(conf.LOCK_TIMEOUT))
    budgets = Budget.objects.using(using).in_bulk([row.budget_id for row in found if row.budget_id is not None])
    for row in found:
        row.budget = None if row.budget_id is None else budgets.get(row.budget_id)
    return {row.pk: row for row in found}


def crossings_of(ledger: BudgetLedger) -> list[Crossing]:
    """Note the thresholds that a locked ledger has reached and that were not announced before, and return them."""
    return mark(ledger, ledger.percentage)


def mark(ledger: BudgetLedger, percentage: int) -> list[Crossing]:
    """Note the thresholds up to a percentage as announced, and return those that are new."""
    new = [each for each in BUDGET_THRESHOLDS if ledger.notified < each <= percentage]
    if new:
        ledger.notified = new[-1]
    return [Crossing(ledger, each) for each in new]
