"""The estimated tokens and cost of a call of a model, before it is made.

An estimate is meant to be too high rather than too low: what a call does not use is returned when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.utils import timezone
from pydantic_core import to_json

from ..conf import conf
from ..costs.prices import acost_of
from ..models import AgentCall, BudgetUnit

BYTES_PER_TOKEN = 3  # of UTF-8 JSON; tokenizers need about 4 for English text and 3 for Chinese or code


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected size of a call of a model."""

    model: str
    provider: str
    input_tokens: int
    output_tokens: int

    async def amount(self, unit: str) -> Decimal | None:
        """Return the expected cost in a unit, or None if the price of the model is unknown."""
        if unit == BudgetUnit.TOKENS:
            return Decimal(self.input_tokens + self.output_tokens)
        return await acost_of(
            AgentCall(
                name=self.model,
                provider=self.provider,
                input_tokens=self.input_tokens,
                output_tokens=self.output_tokens,
                started_at=timezone.now(),
            )
        )


def estimate(
    model: str, provider: str, request: Any, *, max_tokens: int | None = None, earlier_tokens: int = 0
) -> Estimate:
    """Return the expected size of a call with this request.

    `max_tokens` limits its answer; by default the setting `BUDGET_OUTPUT_TOKENS` applies. `earlier_tokens` are those of
    the previous call of its run, whose conversation may be stored by the provider.
    """
    size = len(to_json(request, fallback=repr, serialize_unknown=True))
    return Estimate(
        model=model,
        provider=provider,
        input_tokens=max(1, -(-size // BYTES_PER_TOKEN), earlier_tokens),
        output_tokens=max_tokens if max_tokens is not None else conf.BUDGET_OUTPUT_TOKENS,
    )
