"""Tries: failed calls of models after which another model was called, or that were billed. Each has a row.

Their `call_id` is "try 1", "try 2" and so on, so no attempt replays them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agents import Model, Usage

from django_agentexec.calls.position import Position
from django_agentexec.costs.prices import acost_of
from django_agentexec.models import AgentCall, CallKind, CallState
from django_agentexec.validation import one_line

from .sdk_models import name_of, provider_of
from .wire import counts_of, usage_of


async def record_try(
    position: Position, model: Model, error: Exception, started_at: datetime, *, characters: int = 0, usage: Any = None
) -> None:
    """Record a failed call of `model` in the trace, with the tokens that its provider has reported.

    `characters` is the length of the text that it had streamed. The provider may bill such a call without reporting
    its tokens: then its tokens are 0 and its cost is unknown.
    """
    journal, ordinal = position.journal, max(0, position.ordinal - 1)
    answer = journal.find(position.path, CallKind.MODEL, ordinal)
    number = 1
    while journal.find(position.path, CallKind.MODEL, ordinal, f"try {number}") is not None:
        number += 1
    call = journal.new_call(position.path, CallKind.MODEL, ordinal, f"try {number}")
    call.agent, call.name, call.provider = position.agent[:200], name_of(model)[:200], provider_of(model)
    call.state, call.error, call.started_at = CallState.FAILED, one_line(error), started_at
    if characters:
        call.error += f" (after {characters} characters of the answer; the provider may bill them)"
    counts = None if usage is None else set_tokens(call, usage_of(usage))
    if counts is not None:
        call.cost = await acost_of(call)
    await journal.finish(call, usage=counts, cost=call.cost, try_of=answer)


def set_tokens(call: AgentCall, usage: Usage) -> dict[str, int]:
    """Set the token counts of a call, and return them in the form of `Activity.usage`."""
    counts = counts_of(usage)
    for name in ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"):
        setattr(call, name, counts[name])
    return counts
