"""The end of a run whose next call exceeds a budget: a suspension of its activity, or `BudgetExceeded`."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction
from django.utils.translation import gettext

from ..activity.store import database
from ..activity.suspension import waiting_text
from ..conf import in_site_language
from ..current import OwningAttempt
from ..exceptions import BudgetExceeded
from ..models import BudgetAction, BudgetLedger, BudgetWait, WaitingFor
from .charges import CHANGED_FIELDS, OverBudget, locked_ledgers, mark
from .estimates import Estimate
from .notices import amount_text, announce


def halt(attempt: OwningAttempt, error: OverBudget, expected: Estimate) -> BaseException:
    """Return the exception that ends the run: `Suspended`, or `BudgetExceeded`."""
    ledger = error.ledger
    if error.amount is not None and ledger.spent + error.amount > ledger.limit:
        _note_refusal(ledger)  # otherwise calls in progress may cost less than they have reserved
    message = in_site_language(_text, error, expected)
    if ledger.effect == BudgetAction.FAIL:
        return BudgetExceeded(message)
    wait = BudgetWait(
        ledger_id=ledger.pk,
        agent_id=attempt.agent_id,
        amount=error.amount,
        model=expected.model[:200],
        provider=expected.provider[:100],
    )
    return attempt.suspend_until(
        WaitingFor.BUDGET,
        ledger.ends_at,
        message=message,
        public_message=waiting_text(WaitingFor.BUDGET),  # the budget may be that of all tenants
        record=wait,
    )


def _note_refusal(ledger: BudgetLedger) -> None:
    """Announce that the limit is reached, once per period."""
    if ledger.notified >= 100:
        return
    using = database()
    with transaction.atomic(using=using):
        found = locked_ledgers([ledger.pk], using).get(ledger.pk)
        crossings = mark(found, 100)[-1:] if found is not None else []  # 100 %; less was not spent
        if found is not None and crossings:
            found.save(using=using, update_fields=CHANGED_FIELDS)
            transaction.on_commit(lambda: announce(crossings), using=using, robust=True)


def _text(error: OverBudget, expected: Estimate) -> str:
    """Return the log line; called in the language of the site."""
    ledger = error.ledger
    if error.amount is None:
        return gettext("Budget %(budget)s: the price of %(model)s is unknown. Add a price of the model.") % {
            "budget": ledger.label,
            "model": expected.model,
        }
    return gettext("Budget %(budget)s: the next call needs up to %(amount)s, %(left)s of %(limit)s is left.") % {
        "budget": ledger.label,
        "amount": amount_text(error.amount, ledger.unit),
        "left": amount_text(max(ledger.available, Decimal(0)), ledger.unit),
        "limit": amount_text(ledger.limit, ledger.unit),
    }
