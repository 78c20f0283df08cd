"""Amounts of money: their precision, and their form in JSON."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated

from pydantic import PlainSerializer

UNIT = Decimal("1e-10")
"""The precision of stored amounts."""


MOST = Decimal(10) ** 10 - 1
"""The largest whole amount that the database holds."""


def capped(amount: Decimal) -> Decimal:
    """Return an amount, or the largest that the database holds if it is larger."""
    return min(amount, MOST)


def storable(amount: Decimal | None) -> Decimal | None:
    """Return an amount in the precision of the database, or None for an amount that is not finite or out of range."""
    if amount is None or not amount.is_finite() or not 0 <= amount <= MOST:
        return None
    return rounded(amount)


def rounded(amount: Decimal) -> Decimal:
    """Return an amount in the precision of the database."""
    return amount.quantize(UNIT, ROUND_HALF_EVEN)


def plain(amount: Decimal) -> str:
    """Return an amount without exponent and without zeros at its end, such as "0.0025"."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


Money = Annotated[Decimal, PlainSerializer(plain, return_type=str, when_used="json")]
"""US dollars; a string in JSON, since a JSON number loses digits."""
