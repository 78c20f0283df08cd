"""The estimated tokens and cost of a call of a model, before it is made.

An estimate is meant to be too high rather than too low: what a call does not use is returned when it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.utils import timezone

from ..conf import conf
from ..costs.prices import acost_of
from ..models import AgentCall, BudgetUnit
from ..token_estimates import estimated_tokens


@dataclass(frozen=True, slots=True)
class PossibleModel:
    """A model that may answer a call, and the longest answer that it may give."""

    name: str
    provider: str = ""
    max_tokens: int | None = None
    """By default the setting `BUDGET_OUTPUT_TOKENS`."""


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


def estimates(models: Sequence[PossibleModel], content: Any, earlier_tokens: int = 0) -> list[Estimate]:
    """Return the expected size of a call with this content, for each model that may answer it.

    `earlier_tokens` are those of the previous call of its run, whose conversation may be stored by the provider.
    """
    input_tokens = max(1, estimated_tokens(content), earlier_tokens)
    return [
        Estimate(
            model=model.name,
            provider=model.provider,
            input_tokens=input_tokens,
            output_tokens=model.max_tokens if model.max_tokens is not None else conf.BUDGET_OUTPUT_TOKENS,
        )
        for model in models
    ]
