"""Prices of the library genai-prices, which the extra `prices` installs. Without it, no price is known from here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from ..logs import ThrottledLogger
from ..models import AgentCall

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

logger = logging.getLogger(__name__)
_log = ThrottledLogger(logger)

MAX_PROVIDER = 100  # characters


@dataclass(frozen=True)
class Rates:
    """Prices of a model, in US dollars for a million tokens."""

    input: Decimal
    cached: Decimal
    output: Decimal
    is_tiered: bool = False
    """Whether large requests have higher prices."""


def missing_library() -> str:
    """Return how to install the library with the prices of known models; "" if it is installed."""
    if find_spec("genai_prices"):
        return ""
    return _("The prices of known models come with an extra: pip install 'django-agentexec[prices]'.")


def library_cost(call: AgentCall, at: datetime) -> Decimal | None:
    """Return the cost of a call at its time, or None if the library or the model's price is missing."""
    found = _calculate(
        call.name,
        call.provider,
        _aware(at),
        input_tokens=call.input_tokens,
        cache_read_tokens=min(call.cached_tokens, call.input_tokens),
        output_tokens=call.output_tokens,
    )
    return None if found is None else found.total_price


def library_rates(name: str, provider: str, at: datetime) -> Rates | None:
    """Return the prices of a model at a time, or None if they are not known."""
    found = _calculate(name, provider, _aware(at), input_tokens=1)
    if found is None:
        return None
    price = found.model_price
    values = [getattr(price, f"{kind}_mtok", None) for kind in ("input", "cache_read", "output")]
    # Prices by the size of the request have their lowest price as `base`.
    given, cached, output = (value if value is None else Decimal(getattr(value, "base", value)) for value in values)
    if given is None:
        return None
    is_tiered = any(hasattr(value, "base") for value in values)
    return Rates(given, given if cached is None else cached, output or Decimal(0), is_tiered)


def context_window(name: str, provider: str, at: datetime) -> int | None:
    """Return how many tokens a call of a model may have, or None if it is not known."""
    found = _calculate(name, provider, _aware(at), input_tokens=1)
    return None if found is None else found.model.context_window


@lru_cache(maxsize=256)
def provider_of_url(url: str) -> str:
    """Return the library's name for the provider with this base URL, otherwise the URL's host name (and port)."""
    snapshot = _snapshot()
    if snapshot is not None:
        try:
            return str(snapshot().find_provider(None, None, url).id)[:MAX_PROVIDER]
        except LookupError:
            pass
    return host_of_url(url)


def host_of_url(url: str) -> str:
    """Return the host name (and port) of a URL."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()[:MAX_PROVIDER]


def _calculate(name: str, provider: str, at: datetime, **tokens: int) -> PriceCalculation | None:
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    # Names of LiteLLM begin with the provider: the library looks it up.
    provider_id = provider or ("litellm" if "/" in name else None)
    try:
        return calc_price(Usage(**tokens), name, provider_id=provider_id, genai_request_timestamp=at)
    except LookupError:
        return None
    except Exception as error:  # noqa: BLE001  # a call that has been paid must not fail because of its price
        _log.warn(f"genai-prices could not calculate the price of a call of {name!r}.", error)
        return None


def _snapshot() -> Callable[[], Any] | None:
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    return get_snapshot


def _aware(at: datetime) -> datetime:
    return at.astimezone(UTC)  # without time zones, a stored time is that of the server
