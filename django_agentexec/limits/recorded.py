"""Limits of calls of recorded runs: the name of a call in all attempts, and the suspension of its activity.

`limit_of` is the limit of a call of any framework; `LimitedModel` is that of the OpenAI Agents SDK.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from django.utils import timezone

from ..budgets.estimates import PossibleModel
from ..calls.halting import Halted
from ..calls.position import Position
from ..conf import conf
from ..current import current_attempt
from ..models import WaitingFor
from ..token_estimates import estimated_tokens
from .gate import Grant, buckets_for, pass_gate
from .headers import granted
from .refusals import refused_for, status_of

MIN_SUSPENSION = 1.0  # seconds
OUTPUT_TOKENS = 1_000
"""Estimate of an answer without `max_tokens`; the tokens used replace it."""


@asynccontextmanager
async def limit_of(position: Position | None, model: PossibleModel, request: Any) -> AsyncIterator[Grant | None]:
    """Make one call of a model under its limits; the grant is None if no limit applies.

    Set the tokens of the grant before the end of the block. A refusal (an error with the status 429) closes the closest
    limit; the error is raised. Without a position, the call keeps its slot while it waits, and outside of workers there
    are no limits. Raises `Halted` if the run has to wait for long.
    """
    attempt = current_attempt()
    has_store = attempt is not None and attempt.root.records_calls
    buckets = buckets_for(model.name, model.provider) if has_store else ()
    if not buckets:
        yield None
        return
    tokens = 0
    if any(bucket.limit.tpm for bucket in buckets):
        tokens = estimated_tokens(request) + (OUTPUT_TOKENS if model.max_tokens is None else model.max_tokens)
    ticket, halt = ("", None) if position is None else (ticket_of(position), partial(suspend, position))
    grant = await pass_gate(buckets, tokens, endpoint=model.provider, ticket=ticket, halt=halt)
    try:
        with granted(grant):
            yield grant
    except Exception as error:
        if status_of(error) is not None:
            grant.tokens = 0  # the provider has rejected the request
        if (seconds := refused_for(error)) is not None:
            await grant.close(seconds)
        raise
    finally:
        grant.settle(grant.tokens)


def ticket_of(position: Position) -> str:
    """Return the name of the next call of a run, which is the same in all attempts."""
    return f"{position.journal.attempt.agent_id}:{position.path}:{position.ordinal}"


async def suspend(position: Position, seconds: float) -> Halted:
    """Suspend the activity of a run whose call waits that long, after its other calls, and return what to raise."""
    # After a wait in its slot, a call that waits for the end of others would soon be suspended again.
    pause = max(seconds, MIN_SUSPENSION, conf.MODEL_LIMIT_WAIT)
    journal = position.journal
    suspended = journal.attempt.suspend_until(WaitingFor.LIMIT, timezone.now() + timedelta(seconds=pause))
    halted = journal.halts.add(position.path, suspended, "This call waits for the limit of its provider.")
    await journal.active_calls.others_ended(position.path)
    return halted
