"""`LimitedModel`: calls a model as often as its limits permit, and closes them when the provider refuses a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, cast

from agents import Model
from agents.items import ModelResponse, TResponseStreamEvent
from agents.models._openai_retry import get_openai_retry_advice
from agents.models._retry_runtime import (
    get_error_code,
    get_error_header,
    get_retry_after,
    get_status_code,
    provider_managed_retries_disabled,
    should_disable_provider_managed_retries,
)
from agents.retry import ModelRetryAdviceRequest
from openai import APIStatusError
from openai.types.responses import ResponseCompletedEvent

from django_agentexec.calls.position import current_position
from django_agentexec.conf import conf
from django_agentexec.limits.gate import Grant, buckets_for, pass_gate
from django_agentexec.limits.headers import granted, observe
from django_agentexec.limits.recorded import OUTPUT_TOKENS, suspend, ticket_of
from django_agentexec.limits.refusals import EXHAUSTED, KINDS, TOO_MANY_REQUESTS, parse_reset
from django_agentexec.limits.rules import Bucket
from django_agentexec.token_estimates import estimated_tokens

from .candidates import ModelRequest
from .deadlines import paused_deadline
from .sdk_models import DelegatingModel, endpoint_of, name_of, provider_of

MAX_REFUSALS = 10
"""Refusals of one call after which its error is raised; a suspended call counts from 0 again."""
FIRST_BACKOFF, MAX_BACKOFF = 0.5, 8.0  # seconds, as in the client of OpenAI
FIRST_WAIT, MAX_WAIT = 1.0, 60.0  # seconds, if a refusal names no time; doubled after each


def limited(model: Model) -> Model:
    """Return a model behind the limits of the settings; without limits, the model itself."""
    if not conf.MODEL_LIMITS or isinstance(model, LimitedModel):
        return model
    with_models = getattr(model, "with_models", None)  # a model that chooses among others
    return LimitedModel(model) if with_models is None else cast(Model, with_models(limited))


class LimitedModel(DelegatingModel):
    """A model whose calls wait for the limits of `MODEL_LIMITS`.

    The retries of the client are made here, since each request needs a grant.
    """

    def __init__(self, inner: Model) -> None:
        super().__init__(inner)
        self.model = name_of(inner)  # also of a model that has no such attribute
        self._provider = provider_of(inner)
        observe(getattr(inner, "_client", None))

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Wait for the limits, then return the answer."""
        buckets = self._buckets()
        if not buckets:
            return await self.inner.get_response(*args, **kwargs)
        call = _Call(self.inner, buckets, args, kwargs)
        while True:
            grant = await call.grant()
            try:
                with provider_managed_retries_disabled(True), granted(grant):
                    response = await self.inner.get_response(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # raised again
                await call.fail(grant, error)
            else:
                grant.settle(response.usage.total_tokens or None)
                return response

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Wait for the limits, then yield the events of the answer."""
        buckets = self._buckets()
        if not buckets:
            async with aclosing(cast(Any, self.inner.stream_response(*args, **kwargs))) as events:
                async for event in events:
                    yield event
            return
        call = _Call(self.inner, buckets, args, kwargs)
        while True:
            grant = await call.grant()
            async with aclosing(cast(Any, self.inner.stream_response(*args, **kwargs))) as events:
                try:
                    # Not during a `yield`, which would set the context variable for the caller.
                    with provider_managed_retries_disabled(True), granted(grant):
                        event = await anext(events, None)
                except BaseException as error:  # noqa: BLE001  # raised again
                    await call.fail(grant, error)
                    continue
                tokens = None
                try:
                    while event is not None:
                        if isinstance(event, ResponseCompletedEvent) and event.response.usage is not None:
                            tokens = event.response.usage.total_tokens or None
                        yield event
                        event = await anext(events, None)
                finally:
                    grant.settle(tokens)
                return

    def _buckets(self) -> tuple[Bucket, ...]:
        return buckets_for(self.model, self._provider)


class _Call:
    """One call, with its retries."""

    def __init__(
        self, model: Model, buckets: tuple[Bucket, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._buckets = buckets
        self._refusals = 0
        self._retries = 0
        client = getattr(model, "_client", None)
        max_retries = 0 if should_disable_provider_managed_retries() else getattr(client, "max_retries", 0)
        self._max_retries = max_retries if isinstance(max_retries, int) else 0
        self._endpoint = endpoint_of(model)
        self._position = current_position()
        self._ticket = ticket_of(self._position) if self._position is not None else ""
        counts_tokens = any(bucket.limit.tpm for bucket in buckets)
        self._tokens = _estimate(ModelRequest(args, kwargs)) if counts_tokens else 0

    async def grant(self) -> Grant:
        """Wait for a grant. Raises `Halted` if a durable run has to wait for long."""
        halt = None if self._position is None else partial(suspend, self._position)
        with paused_deadline() as deadline:
            renew = None if deadline is None else deadline.renew
            return await pass_gate(
                self._buckets,
                self._tokens,
                endpoint=self._endpoint,
                ticket=self._ticket,
                halt=halt,
                while_waiting=renew,
            )

    async def fail(self, grant: Grant, error: BaseException) -> None:
        """End a call that has failed; raise its error unless it is to be made again."""
        grant.settle(0 if isinstance(error, APIStatusError) else None)
        if not isinstance(error, Exception):
            raise error
        seconds = refused_for(error, self._refusals)
        if seconds is not None:
            await grant.close(seconds)
            self._refusals += 1
            if self._refusals < MAX_REFUSALS:
                return
        elif self._retries < self._max_retries and _is_worth_a_retry(error):
            await asyncio.sleep(min(MAX_BACKOFF, FIRST_BACKOFF * 2.0**self._retries))
            self._retries += 1
            return
        raise error


def _is_worth_a_retry(error: Exception) -> bool:
    advice = get_openai_retry_advice(ModelRetryAdviceRequest(error=error, attempt=1, stream=False))
    return advice is not None and bool(advice.suggested)


def _estimate(request: ModelRequest) -> int:
    max_tokens = request.max_tokens
    return estimated_tokens(request.billed()) + (OUTPUT_TOKENS if max_tokens is None else max_tokens)


def refused_for(error: Exception, refusals: int) -> float | None:
    """Return the seconds for which a provider accepts no calls after this error, or None if it is no such refusal.

    `refusals` is the number of earlier refusals of the call. By the headers `Retry-After` and `Retry-After-Ms`, or
    `x-ratelimit-reset-requests` and `x-ratelimit-reset-tokens`; otherwise an increasing number.
    """
    if get_status_code(error) != TOO_MANY_REQUESTS or get_error_code(error) in EXHAUSTED:
        return None
    seconds = get_retry_after(error)
    if seconds is None:
        seconds = _reset(error)
    return min(MAX_WAIT, FIRST_WAIT * 2.0**refusals) if seconds is None else seconds


def _reset(error: Exception) -> float | None:
    """Return the time until the limits are reset that are used up; if the provider names none of them, of all."""
    resets = {kind: parse_reset(get_error_header(error, f"x-ratelimit-reset-{kind}")) for kind in KINDS}
    known = {kind: seconds for kind, seconds in resets.items() if seconds is not None}
    used_up = [kind for kind in known if get_error_header(error, f"x-ratelimit-remaining-{kind}") == "0"]
    return max((known[kind] for kind in used_up or known), default=None)
