"""`DurableModel`: records each call of a model, and answers recorded calls without a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any, cast

from agents import Model, ModelProvider
from agents.items import ModelResponse, TResponseOutputItem, TResponseStreamEvent
from django.utils import timezone
from openai.types.responses import ResponseCompletedEvent, ResponseCreatedEvent, ResponseOutputItemDoneEvent

from django_agentexec.budgets.calls import Request, RunCharge, begin_charged
from django_agentexec.budgets.estimates import PossibleModel
from django_agentexec.calls.paths import digest_of
from django_agentexec.calls.position import Position, current_position
from django_agentexec.conf import conf
from django_agentexec.costs.prices import acost_of
from django_agentexec.models import AgentCall, CallKind, CallState

from .cached import CacheEntry, ModelCache
from .candidates import ModelRequest
from .sdk_models import DelegatingModel, name_of, provider_of
from .tries import record_try, set_tokens
from .wire import (
    FAILURES,
    completed_event,
    failure_of,
    loaded_response,
    stored_response,
    streamed_response,
)

ShowReplayed = Callable[[Position, ModelResponse], None]


class DurableModel(DelegatingModel):
    """A model whose calls are recorded under the position of the calling run.

    An answer is committed before the SDK receives it, so no tool starts before the call that requested it is safe.
    """

    def __init__(
        self,
        inner: Model,
        show_replayed: ShowReplayed | None = None,
        run_charge: RunCharge | None = None,
        cache: ModelCache | None = None,
    ) -> None:
        super().__init__(inner)
        self._show_replayed = show_replayed
        self._run_charge = run_charge
        own = getattr(inner, "cache", None)
        self._cache = own if isinstance(own, ModelCache) else cache

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the recorded answer, or request and record one."""
        position = current_position()
        if position is None:
            return await self.inner.get_response(*args, **kwargs)
        request = _Request(position, args, kwargs)
        if recorded := self._recorded(position, request):
            return recorded[1]
        entry = self._entry(position, request)
        if entry is not None and (cached := await self._cached(position, request, entry)):
            return cached[1]
        call = await self._begin(position, request)
        try:
            response = await self.inner.get_response(*args, **kwargs)
        except BaseException as error:
            self._fail(position, call, error)
            raise
        await self._finish(position, call, response, entry)
        return response

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Yield the events of the recorded answer (only its end), or request and record one."""
        position = current_position()
        if position is None:
            async for event in self.inner.stream_response(*args, **kwargs):
                yield event
            return
        request = _Request(position, args, kwargs)
        if recorded := self._recorded(position, request):
            yield completed_event(*recorded)
            return
        entry = self._entry(position, request)
        if entry is not None and (cached := await self._cached(position, request, entry)):
            yield completed_event(*cached)
            return
        call = await self._begin(position, request)
        items: list[TResponseOutputItem] = []
        is_finished = False
        try:
            # Closed explicitly, since a consumer that stops leaves the stream of the provider open otherwise.
            async with aclosing(cast(Any, self.inner.stream_response(*args, **kwargs))) as events:
                async for event in events:
                    if isinstance(event, ResponseCreatedEvent):
                        items.clear()  # of a stream that has failed
                    elif isinstance(event, ResponseOutputItemDoneEvent):
                        items.append(event.item)
                    elif isinstance(event, ResponseCompletedEvent):
                        await self._finish(position, call, streamed_response(event.response, items), entry)
                        is_finished = True
                    elif event.type in FAILURES and not is_finished:
                        await self._fail_billed(position, call, event)  # the SDK raises an error
                        is_finished = True
                    yield event
        except BaseException as error:
            if not is_finished:
                self._fail(position, call, error)
            raise
        if not is_finished:
            self._fail(position, call, RuntimeError("The stream ended without an answer."))

    def _recorded(self, position: Position, request: _Request) -> tuple[AgentCall, ModelResponse] | None:
        call = position.next_model_call()
        position.is_replaying = call is not None
        if call is None:
            return None
        position.ordinal += 1
        if call.digest != request.digest and not call.has_changed:
            call.has_changed = True
            position.journal.begin_soon(call)
        response = loaded_response(call)
        if self._show_replayed is not None:
            self._show_replayed(position, response)
        return call, response

    def _entry(self, position: Position, request: _Request) -> CacheEntry | None:
        if self._cache is None:
            return None
        return self._cache.entry(position.journal.attempt, position.agent, self.inner, request)

    async def _cached(
        self, position: Position, request: _Request, entry: CacheEntry
    ) -> tuple[AgentCall, ModelResponse] | None:
        """Return a cached answer, recorded as a call without tokens and cost; None without a usable entry."""
        found = await entry.read()
        if found is None:
            return None
        call = self._call(position, request)
        call.name, call.provider, call.output = found["name"], found["provider"], {**found["answer"], "requests": 0}
        call.state, call.is_cached, call.cost = CallState.DONE, True, Decimal()
        try:
            response = loaded_response(call)
        except (ValueError, KeyError, TypeError):  # of another release of the SDK
            call.state, call.is_cached, call.cost, call.output = CallState.STARTED, False, None, None
            return None
        await position.journal.finish(call, cost=call.cost)
        position.ordinal += 1
        if self._show_replayed is not None:
            self._show_replayed(position, response)
        return call, response

    def _call(self, position: Position, request: _Request) -> AgentCall:
        """Return the row of a call that starts now."""
        journal = position.journal
        call = journal.find(position.path, CallKind.MODEL, position.ordinal)
        if call is None:
            call = journal.new_call(position.path, CallKind.MODEL, position.ordinal)
        call.agent, call.name, call.digest = position.agent[:200], name_of(self.inner)[:200], request.digest
        call.state, call.error, call.finished_at, call.started_at = CallState.STARTED, "", None, timezone.now()
        call.attempt, call.fence = journal.attempt.number, journal.attempt.fence
        if conf.TRACE_REQUESTS:
            call.request = request.content
        return call

    async def _begin(self, position: Position, request: _Request) -> AgentCall:
        call, active_calls = self._call(position, request), position.journal.active_calls
        billed = Request(request.billed, lambda: self._possible_models(request))
        active_calls.begin_model(position.path)
        try:
            await begin_charged(position, call, billed, self._run_charge)
        except BaseException:
            active_calls.end_model(position.path)
            raise
        position.ordinal += 1
        position.answered_by = None
        return call

    def _possible_models(self, request: _Request) -> list[PossibleModel]:
        """Return the models that may answer: several of a `ResilientModel`."""
        several = getattr(self.inner, "possible_calls", None)
        calls = [(self.inner, request.values.get("model_settings"))] if several is None else several(request)
        return [
            PossibleModel(name_of(model), provider_of(model), getattr(settings, "max_tokens", None))
            for model, settings in calls
        ]

    async def _finish(
        self, position: Position, call: AgentCall, response: ModelResponse, entry: CacheEntry | None
    ) -> None:
        model = self._name_model(position, call)
        call.state, call.output = CallState.DONE, stored_response(response)
        counts = set_tokens(call, response.usage)
        call.cost = await acost_of(call)
        try:
            await position.journal.finish(call, usage=counts, cost=call.cost)
        finally:
            position.journal.active_calls.end_model(position.path)
        if entry is not None and model is getattr(self.inner, "primary", model):
            await entry.write(model, response)

    def _name_model(self, position: Position, call: AgentCall) -> Model:
        """Set the name and provider of the model that was called last, and return the model."""
        model: Model = position.answered_by or self.inner
        call.name, call.provider = name_of(model)[:200], provider_of(model)
        return model

    def _fail(self, position: Position, call: AgentCall, error: BaseException) -> None:
        position.journal.active_calls.end_model(position.path)
        position.ordinal = call.ordinal  # a retry of the SDK asks for the same answer again
        self._name_model(position, call)
        position.journal.fail_soon(call, error)

    async def _fail_billed(self, position: Position, call: AgentCall, event: Any) -> None:
        """Record an answer that its provider has ended without success, with the tokens that it has reported."""
        error, usage = failure_of(event), getattr(getattr(event, "response", None), "usage", None)
        if usage is not None:
            await record_try(position, position.answered_by or self.inner, error, call.started_at, usage=usage)
        self._fail(position, call, error)


class DurableProvider(ModelProvider):
    """A provider whose models are recorded."""

    def __init__(self, inner: ModelProvider, wrap: Callable[[Model], Model]) -> None:
        self.inner = inner
        self._wrap = wrap

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def get_model(self, model_name: str | None) -> Model:
        """Return a model of the inner provider, recorded."""
        return self._wrap(self.inner.get_model(model_name))

    async def aclose(self) -> None:
        """Close the inner provider."""
        await self.inner.aclose()


def own_provider(provider: ModelProvider) -> ModelProvider:
    """Return the user's provider, such as that of the configuration that a tool passes on to a run inside it."""
    return provider.inner if isinstance(provider, DurableProvider) else provider


class _Request(ModelRequest):
    """The next request of a run: its digest, and its content for the trace.

    The digest leaves out the input that the previous request of the run contained, too: it would cost more with each
    turn, and is part of an earlier digest.
    """

    def __init__(self, position: Position, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._instructions, self._input = self.values.get("system_instructions"), self.values.get("input")
        size = len(self._input) if isinstance(self._input, list) else 0
        sizes = position.input_sizes
        del sizes[position.ordinal :]  # of a try that has failed
        known = sizes[-1] if sizes and sizes[-1] <= size else 0
        sizes.append(size)
        new = self._input[known:] if isinstance(self._input, list) else self._input
        self.digest = digest_of(self._instructions, known, new)

    @property
    def content(self) -> dict[str, Any]:
        """The request as JSON values."""
        return {
            "instructions": self._instructions,
            "input": self._input,
            "tools": [getattr(tool, "name", type(tool).__name__) for tool in self.values.get("tools") or ()],
        }
