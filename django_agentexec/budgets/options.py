"""`RunBudget`: a budget that code declares, by `@task(budget=...)` or `OpenAIRunner(budget=...)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from ..choices import BudgetAction, BudgetUnit
from ..exceptions import InvalidOption
from ..money import UNIT
from ..translation import gettext as _

MAX_AMOUNT = Decimal(10) ** 10  # as many digits as the column holds

BudgetOption: TypeAlias = "RunBudget | Decimal | int | str | Mapping[str, Any]"
"""A `RunBudget`, its options as a dictionary, or an amount in US dollars."""


@dataclass(frozen=True, slots=True)
class RunBudget:
    """The budget of each run: `RunBudget(Decimal("0.50"))`, `RunBudget(200_000, unit="tokens", action="fail")`.

    Raises `InvalidOption` for anything that cannot work.
    """

    limit: Decimal | int | str
    unit: BudgetUnit | str = BudgetUnit.MONEY
    action: BudgetAction | str = BudgetAction.SUSPEND

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", _amount(self.limit))  # the dataclass is frozen
        object.__setattr__(self, "unit", _member(BudgetUnit, "unit", self.unit))
        object.__setattr__(self, "action", _member(BudgetAction, "action", self.action))


def as_run_budget(given: object) -> RunBudget | None:
    """Return the budget of an option, or None for None. Raises `InvalidOption`."""
    if given is None or isinstance(given, RunBudget):
        return given
    if isinstance(given, Mapping):
        unknown = sorted(map(str, given.keys() - {"limit", "unit", "action"}))
        if unknown or "limit" not in given:
            raise InvalidOption(f"budget={dict(given)!r} must have the key 'limit', and may have 'unit' and 'action'.")
        return RunBudget(**given)
    return RunBudget(given)  # type: ignore[arg-type]  # checked there


def checked_limit(value: object) -> Decimal:
    """Return a limit as an amount that can be stored; 0 refuses every call. Raises `InvalidOption`."""
    return Decimal(0) if value in (0, "0") and value is not False else _amount(value)


def _amount(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise InvalidOption(
            _(
                'budget=%(value)r must be an amount such as Decimal("0.50"), or RunBudget(200_000, unit="tokens"); a '
                "float is not exact."
            )
            % {"value": value}
        )
    try:
        amount = Decimal(value)
    except InvalidOperation:
        text = _('budget=%(value)r is not a number; give an amount such as Decimal("0.50").')
        raise InvalidOption(text % {"value": value}) from None
    if not amount.is_finite() or not 0 < amount < MAX_AMOUNT or amount != amount.quantize(UNIT):
        raise InvalidOption(
            _("budget=%(value)r must be greater than 0 and below %(maximum)s, with 10 decimal places.")
            % {"value": value, "maximum": f"{MAX_AMOUNT:,}"}
        )
    return amount


def _member(kind: type[BudgetUnit] | type[BudgetAction], name: str, value: object) -> Any:
    if value not in kind.values:
        raise InvalidOption(f"RunBudget({name}={value!r}) must be one of {', '.join(map(repr, kind.values))}.")
    return kind(value)
