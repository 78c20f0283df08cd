"""Amounts of money: their precision, and their forms in JSON and in texts."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated

from django.utils.formats import number_format
from django.utils.translation import gettext as _
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


def dollars(amount: Decimal, decimals: int | None = None) -> str:
    """Return an amount as text in the current language, such as "$1,204.50".

    Without `decimals` it has all its digits, at least two of them after the point: "$0.10", "$0.0025".
    """
    if decimals is None:
        decimals = max(2, len(plain(amount).partition(".")[2]))
    number = number_format(f"{amount:.{decimals}f}", use_l10n=True, force_grouping=True)
    return _("$%(amount)s") % {"amount": number}


Money = Annotated[Decimal, PlainSerializer(plain, return_type=str, when_used="json")]
"""US dollars; a string in JSON, since a JSON number loses digits."""
