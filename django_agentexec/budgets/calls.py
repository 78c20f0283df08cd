"""The start of a call of a model under the budgets of its activity and its run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async

from ..calls.journal import Journal
from ..calls.position import Position
from ..logs import ThrottledLogger
from ..models import AgentCall, BudgetAction, BudgetLedger, CallKind
from .applicable import ledgers_for
from .charges import Charge, Entry, OverBudget
from .estimates import Estimate, PossibleModel, estimates
from .halts import halt
from .options import RunBudget
from .waits import release_stale

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)


@dataclass
class RunCharge:
    """The budget of one run of an agent, with the runs inside it."""

    budget: RunBudget
    path: str = ""
    """The path of the run, set when it begins."""


@dataclass(frozen=True)
class Request:
    """What the estimate of a call reads."""

    content: Callable[[], Any]
    """Returns everything that the provider receives as input."""
    models: Callable[[], Sequence[PossibleModel]]
    """Returns the models that may answer, since each may be called after an outage of another."""


async def begin_charged(position: Position, call: AgentCall, request: Request, run: RunCharge | None = None) -> None:
    """Write the start of a call, and reserve its estimated cost in the same transaction.

    Raises `Halted`, with nothing written, if a budget does not cover the call. Without budgets it is `Journal.begin`.
    """
    journal = position.journal
    if halted := journal.halts.of(position.path):
        await journal.active_calls.others_ended(position.path)
        raise halted
    ledgers = await ledgers_for(journal.attempt, run.budget if run else None, run.path if run else "")
    if not ledgers:
        await journal.begin(call)
        return
    expected = estimates(request.models(), request.content(), _tokens_before(position))
    try:
        await _begin(journal, call, ledgers, expected)
    except OverBudget as error:
        outcome = await sync_to_async(halt)(journal.attempt, error, error.unpriced or expected[0])
        halted = journal.halts.add(position.path, outcome)
        await journal.active_calls.others_ended(position.path)
        raise halted from None


async def _begin(journal: Journal, call: AgentCall, ledgers: list[BudgetLedger], expected: Sequence[Estimate]) -> None:
    charge = Charge(journal.attempt.agent_id, journal.attempt.fence, await _entries(ledgers, expected))
    try:
        await journal.begin(call, charge)
    except OverBudget as error:
        # Attempts that have died, also of this activity, may have left reservations.
        if not await sync_to_async(release_stale)([error.ledger.pk]):
            raise
        await journal.begin(call, charge)


async def _entries(ledgers: list[BudgetLedger], expected: Sequence[Estimate]) -> list[Entry]:
    """Return what a call reserves in each ledger: the cost of the most expensive model.

    Raises `OverBudget` for an unknown price: it is not free.
    """
    entries = []
    for ledger in ledgers:
        amounts = [(await each.amount(ledger.unit), each) for each in expected]
        unpriced = next((each for amount, each in amounts if amount is None), None)
        if unpriced is not None and ledger.effect != BudgetAction.NOTIFY:
            raise OverBudget(ledger, None, unpriced)
        highest = max((amount for amount, _ in amounts if amount is not None), default=None)
        if highest is not None:
            entries.append(Entry(ledger.pk, highest))
        elif unpriced is not None:
            _log.warn(f"Budget {ledger.label} does not count calls of {unpriced.model}.", LookupError("no price"))
    return entries


def _tokens_before(position: Position) -> int:
    """Return the tokens of the previous call of the run, whose conversation the provider may have stored."""
    if not position.ordinal:
        return 0
    earlier = position.journal.find(position.path, CallKind.MODEL, position.ordinal - 1)
    return 0 if earlier is None else earlier.input_tokens + earlier.output_tokens
