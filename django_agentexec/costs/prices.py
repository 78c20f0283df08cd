"""The price of a call: that of a `ModelPrice` row, otherwise that of genai-prices, otherwise unknown (None, never 0).

Each process keeps the rows in memory for `MAX_AGE` seconds, so that the end of a call reads nothing from the database.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fnmatch import translate

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from ..activity.store import database
from ..forks import reset_after_fork
from ..logs import ThrottledLogger
from ..models import AgentCall, ModelPrice
from ..money import rounded
from .library import Rates, library_cost, library_rates

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)

MAX_AGE = 60.0  # seconds
MAX_ROWS = 5_000
MILLION = Decimal(1_000_000)
_WILDCARDS = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Price:
    """The prices of one row, ready to be compared with calls."""

    name: re.Pattern[str]
    provider: re.Pattern[str] | None
    valid_from: date
    rates: tuple[Decimal, Decimal, Decimal]
    """For a million input, cached and output tokens."""
    rank: tuple[bool, int, bool, date]
    """Of the prices that match, that with the highest rank applies."""

    def matches(self, name: str, provider: str, day: date) -> bool:
        """Return whether it is the price of a model on this day, unless another price has a higher rank."""
        if day < self.valid_from or (self.provider is not None and not self.provider.fullmatch(provider.lower())):
            return False
        lower = name.lower()
        return bool(self.name.fullmatch(lower) or self.name.fullmatch(lower.rpartition("/")[2]))

    def cost(self, call: AgentCall) -> Decimal:
        """Return the cost of a call."""
        cached = min(call.cached_tokens, call.input_tokens)
        counts = (call.input_tokens - cached, cached, call.output_tokens)
        return sum((rate * count for rate, count in zip(self.rates, counts, strict=True)), Decimal()) / MILLION


class PriceTable:
    """The rows of `ModelPrice` in this process. Thread-safe."""

    def __init__(self) -> None:
        self._prices: list[Price] = []
        self._read_at: float | None = None
        self._lock = threading.Lock()
        reset_after_fork(self.reset)

    @property
    def is_stale(self) -> bool:
        """Whether the rows must be read again."""
        return self._read_at is None or time.monotonic() - self._read_at >= MAX_AGE

    def reset(self, **_: object) -> None:
        """Forget the rows, so that the next call reads them."""
        self._lock = threading.Lock()
        self._read_at = None

    def refresh(self) -> None:
        """Read the rows if they are stale; one query. Without the database, those known so far remain in use."""
        with self._lock:
            if not self.is_stale:
                return
            try:
                rows = ModelPrice.objects.using(database()).order_by("-valid_from")[:MAX_ROWS]
                self._prices = sorted(map(_price, rows), key=lambda price: price.rank, reverse=True)
            except (DatabaseError, InterfaceError) as error:
                _log.warn("Could not read the prices of models; those known so far remain in use.", error)
            self._read_at = time.monotonic()

    def find(self, name: str, provider: str, at: datetime) -> Price | None:
        """Return the price of a model at a time, or None if no row matches."""
        day = _day(at)
        return next((price for price in self._prices if price.matches(name, provider, day)), None)

    def cost(self, call: AgentCall) -> Decimal | None:
        """Return the cost of an answered call of a model, or None if its price or its tokens are unknown."""
        if not call.input_tokens and not call.output_tokens:
            return None  # the provider has not reported the tokens
        price = self.find(call.name, call.provider, call.started_at)
        cost = library_cost(call, call.started_at) if price is None else price.cost(call)
        return None if cost is None else rounded(cost)


table = PriceTable()


def cost_of(call: AgentCall) -> Decimal | None:
    """Return the cost of an answered call of a model in US dollars, or None if it is unknown."""
    table.refresh()
    return table.cost(call)


async def acost_of(call: AgentCall) -> Decimal | None:
    """Async version of `cost_of`."""
    if table.is_stale:
        await sync_to_async(table.refresh)()
    return table.cost(call)


def rates_of(name: str, provider: str, at: datetime) -> Rates | None:
    """Return the prices of a model at a time, or None if they are unknown."""
    table.refresh()
    price = table.find(name, provider, at)
    return Rates(*price.rates) if price is not None else library_rates(name, provider, at)


def install() -> None:
    """Let changes of prices in this process take effect at once; called when the app is ready."""
    for signal in (post_save, post_delete):
        signal.connect(table.reset, ModelPrice, dispatch_uid="agentexec.prices")


def _price(row: ModelPrice) -> Price:
    cached = row.input_price if row.cached_price is None else row.cached_price
    return Price(
        name=_compiled(row.pattern),
        provider=_compiled(row.provider) if row.provider else None,
        valid_from=row.valid_from,
        rates=(row.input_price, cached, row.output_price),
        # A name before a pattern, the longer pattern before the shorter, a price of one provider before one of all.
        rank=(not _WILDCARDS.search(row.pattern), len(row.pattern), bool(row.provider), row.valid_from),
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern.lower()))


def _day(at: datetime) -> date:
    """Return the date in the time zone of the settings."""
    return timezone.localtime(at, timezone.get_default_timezone()).date() if timezone.is_aware(at) else at.date()
