"""`ResilientModel`: calls the next of several models after an outage, also in the middle of a stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from agents import Model, ModelProvider, ModelSettings, MultiProvider
from agents.items import ModelResponse, TResponseOutputItem, TResponseStreamEvent
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from django.utils import timezone
from openai.types.responses import Response, ResponseCompletedEvent, ResponseCreatedEvent, ResponseOutputItemDoneEvent

from django_agentexec.calls.position import current_position
from django_agentexec.exceptions import InvalidOption, ModelsUnavailable
from django_agentexec.resilience.breakers import BreakerCall
from django_agentexec.tasks.retry import is_transient, status_of
from django_agentexec.validation import one_line

from .cached import ModelCache
from .candidates import DEFAULT_TIMEOUT, ModelCandidate, ModelRequest, supports_cache_key, valid_timeout
from .deadlines import Deadline
from .outages import StreamFailed, is_outage, is_outage_event, reason_of
from .sdk_models import name_of, qualified_name
from .tries import record_try
from .wire import FAILURES, failure_of

logger = logging.getLogger(__name__)

NO_LIMIT_LEASE = 3_600.0  # seconds of a probe of a model without a timeout
LEASES_PER_TIMEOUT = 2
"""A probe is renewed with each event of its stream, and the next event may take one timeout."""

Models = Sequence[str | Model | ModelCandidate]


class ResilientModel(Model):
    """A model of the SDK that calls the first of `models`, and after an outage the next.

        Agent("Writer", model=ResilientModel(["gpt-5", "gpt-5-mini", ModelCandidate(local, supports=["tools"])]))

    Outages are errors of the connection, timeouts, HTTP 5xx, 429 and exhausted quotas, also in the middle of a stream:
    followers of the activity then receive the new answer in place of the text. Errors of the request itself are raised.
    Each model has a circuit breaker, which the fleet shares.

    `timeout` (seconds, for the next event of a stream or a whole answer) applies to models that are no
    `ModelCandidate`. Names are resolved by `provider`, by default a `MultiProvider`. `cache` keeps answers, for agents
    with temperature 0: True, or a `ModelCache`.

    Raises `InvalidOption` for invalid values. Calls raise `ModelsUnavailable` if no model has answered, and
    `InvalidOption` if none of them supports what the request needs.
    """

    def __init__(
        self,
        models: Models,
        *,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,
        provider: ModelProvider | None = None,
        cache: bool | ModelCache = False,
    ) -> None:
        self.candidates = _candidates(models, valid_timeout(timeout, "ResilientModel"))
        self.cache = ModelCache.from_option(cache, "ResilientModel")
        self._provider = provider
        self._owns_provider = provider is None
        self._wrap: Callable[[Model], Model] = lambda model: model
        self._resolved: dict[int, Model] = {}

    @property
    def model(self) -> str:
        """The name of the first model."""
        return self.candidates[0].name

    @property
    def primary(self) -> Model:
        """The first model."""
        return self.resolve(self.candidates[0])

    def possible_calls(self, request: ModelRequest) -> list[tuple[Model, ModelSettings]]:
        """Return the models that a request may call, with the settings of each."""
        needs, settings = request.needs(), request.values["model_settings"]
        suitable = [each for each in self.candidates if not each.lacks(needs, self.resolve(each))]
        return [(self.resolve(each), each.settings_for(settings)) for each in suitable or self.candidates]

    def primary_settings(self, settings: ModelSettings) -> ModelSettings:
        """Return the settings of a call of the first model."""
        return self.candidates[0].settings_for(settings)

    def _supports_default_prompt_cache_key(self) -> bool:
        return any(supports_cache_key(self.resolve(each)) for each in self.candidates)

    @property
    def has_names(self) -> bool:
        """Whether the SDK creates the client of a model."""
        return any(isinstance(each.model, str) for each in self.candidates)

    def bound_to(self, provider: ModelProvider) -> ResilientModel:
        """Return a copy that resolves names by `provider`, unless a provider was given."""
        if not self._owns_provider:
            return self
        bound = copy(self)
        bound._provider, bound._owns_provider, bound._resolved = provider, False, {}
        return bound

    def with_models(self, wrap: Callable[[Model], Model]) -> ResilientModel:
        """Return a copy whose calls go to `wrap(model)` instead of each model."""
        wrapped = copy(self)
        wrapped._wrap, wrapped._resolved = wrap, {}
        return wrapped

    async def close(self) -> None:
        """Close the models that were called."""
        for model in list(self._resolved.values()):
            await model.close()
        if self._owns_provider and self._provider is not None:
            await self._provider.aclose()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        for model in list(self._resolved.values()):
            await model._cleanup_on_run_end(owner)

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the advice of a model about the error that `ModelsUnavailable` was raised from."""
        error = request.error
        if isinstance(error, ModelsUnavailable) and isinstance(error.__cause__, Exception):
            request = replace(request, error=error.__cause__)
        advice = (model.get_retry_advice(request) for model in list(self._resolved.values()))
        return next((each for each in advice if each is not None), None)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the answer of the first model that gives one."""
        route = _Route(self, ModelRequest(args, kwargs))
        while (call := await route.next_call()) is not None:
            try:
                response = await call.response()
            except Exception as error:  # noqa: BLE001  # raised again unless it is an outage
                await route.handle(call, error)
            except BaseException:
                await call.breaker.release()
                raise
            else:
                await call.succeed()
                return response
        raise route.failure() from route.cause

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Yield the events of the first model that completes its answer.

        A `ResponseCreatedEvent` precedes the events of a further model, if a stream has ended in the middle.
        """
        route = _Route(self, ModelRequest(args, kwargs))
        has_started = False
        while (call := await route.next_call()) is not None:
            if has_started:
                yield _created(call.model)
                has_started = False
            try:
                async with aclosing(cast(Any, call.events())) as events:
                    async for event in events:
                        has_started = True
                        yield event
            except Exception as error:  # noqa: BLE001  # raised again unless it is an outage
                await route.handle(call, error)
            except BaseException:
                await call.breaker.release()
                raise
            else:
                return
        raise route.failure() from route.cause

    def resolve(self, candidate: ModelCandidate) -> Model:
        """Return the model of a candidate. Names are resolved at their first use."""
        key = id(candidate)
        if key not in self._resolved:
            model = candidate.model
            if isinstance(model, str):
                self._provider = self._provider or MultiProvider()
                model = self._provider.get_model(model)
            self._resolved[key] = self._wrap(model)
        return self._resolved[key]


@dataclass
class _Call:
    """A call of one model."""

    candidate: ModelCandidate
    model: Model
    arguments: dict[str, Any]
    breaker: BreakerCall
    started_at: datetime = field(default_factory=timezone.now)
    characters: int = 0
    """Length of the text that it has streamed."""
    has_answered: bool = False

    def deadline(self) -> Deadline:
        """Return the timeout of the candidate."""
        return Deadline(cast("float | None", self.candidate.timeout), self.breaker.renew)

    async def response(self) -> ModelResponse:
        """Return its answer."""
        async with self.deadline().limit("No answer"):
            return await self.model.get_response(**self.arguments)

    async def events(self) -> AsyncIterator[TResponseStreamEvent]:
        """Yield the events of its stream. Raises `StreamFailed` if it ends without an answer by an outage."""
        items: list[TResponseOutputItem] = []
        has_ended = False
        try:
            async with aclosing(cast(Any, self.model.stream_response(**self.arguments))) as stream:
                async for event in _timed(stream, self.deadline()):
                    await self.breaker.renew()
                    if isinstance(event, ResponseOutputItemDoneEvent):
                        items.append(event.item)
                    elif isinstance(event, ResponseCompletedEvent):
                        if not event.response.output:
                            event.response.output = items  # otherwise the SDK would add the items of a failed stream
                        await self.succeed()
                        has_ended = True
                    elif event.type in FAILURES:
                        if is_outage_event(event):
                            raise StreamFailed(str(failure_of(event)), getattr(event, "response", None))
                        has_ended = True
                    elif event.type == "response.output_text.delta":
                        self.characters += len(event.delta)
                    yield event
        except Exception as error:
            if not self.has_answered:
                raise
            logger.info("The stream of model %s failed after its answer: %s", self.candidate.name, one_line(error))
        if not has_ended:
            raise StreamFailed("The stream ended without an answer.")
        await self.breaker.succeed()

    async def succeed(self) -> None:
        """Note the answer."""
        self.has_answered = True
        position = current_position()
        if position is not None:
            position.answered_by = self.model
        await self.breaker.succeed()


class _Route:
    """The way of a request through the models: those that it may call, and why earlier ones have not answered."""

    def __init__(self, owner: ResilientModel, request: ModelRequest) -> None:
        self._owner = owner
        self._request = request
        self._reasons: list[str] = []
        self._errors: list[Exception] = []
        self._retry_in: list[float] = []
        self._left = self._suitable()

    def _suitable(self) -> list[ModelCandidate]:
        """Return the candidates that support what the request needs; raise `InvalidOption` if there are none."""
        owner, needs, suitable = self._owner, self._request.needs(), []
        for candidate in owner.candidates:
            if lacks := candidate.lacks(needs, owner.resolve(candidate)):
                self._reasons.append(f"{candidate.name} lacks {', '.join(lacks)}")
            else:
                suitable.append(candidate)
        if not suitable:
            raise InvalidOption(
                f"No model of ResilientModel supports what the request needs ({', '.join(needs)}): "
                f"{'; '.join(self._reasons)}. Add a model that supports it, or correct `supports` of a ModelCandidate."
            )
        return suitable

    @property
    def cause(self) -> Exception | None:
        """The latest error, or the latest that may be gone at the next attempt."""
        errors = list(reversed(self._errors))
        return next((each for each in errors if is_transient(each)), next(iter(errors), None))

    async def next_call(self) -> _Call | None:
        """Return the call of the next model whose breaker permits it, or None."""
        while self._left:
            candidate = self._left.pop(0)
            model = self._owner.resolve(candidate)
            breaker = BreakerCall(qualified_name(model), _lease(candidate))
            permit = await breaker.begin()
            if permit.is_permitted:
                return _Call(candidate, model, self._request.for_candidate(candidate, model), breaker)
            self._retry_in.append(permit.retry_in)
            self._reasons.append(f"{candidate.name}: its circuit breaker is open")
        return None

    async def handle(self, call: _Call, error: Exception) -> None:
        """Record an outage, so that the next model is called; raise any other error."""
        if not is_outage(error):
            if status_of(error) is None:
                await call.breaker.release()
            else:
                await call.breaker.succeed()  # the provider has answered
            raise error
        self._retry_in.append(await call.breaker.fail(reason_of(error)))
        self._errors.append(error)
        self._reasons.append(f"{call.candidate.name}: {one_line(error)}")
        logger.warning("Model %s has failed: %s", call.candidate.name, one_line(error))
        position = current_position()
        if position is not None:
            position.answered_by = call.model
            usage = getattr(error, "usage", None)
            await record_try(position, call.model, error, call.started_at, characters=call.characters, usage=usage)

    def failure(self) -> ModelsUnavailable:
        """Return the error of a request that no model has answered."""
        retry_in = min(self._retry_in, default=0.0)  # one model that may be called again is enough
        return ModelsUnavailable(f"No model has answered: {'; '.join(self._reasons)}", retry_in)


def _candidates(models: Models, timeout: float | None) -> list[ModelCandidate]:
    if isinstance(models, (str, Model)) or not isinstance(models, Sequence) or not models:
        raise InvalidOption(f"ResilientModel({models!r}) must be a list of at least one model, such as ['gpt-5'].")
    candidates = []
    for each in models:
        model = each.model if isinstance(each, ModelCandidate) else each
        if isinstance(model, ResilientModel):
            raise InvalidOption("A ResilientModel contains another; list the models of both in one.")
        candidates.append(each if isinstance(each, ModelCandidate) else ModelCandidate(each, timeout=timeout))
    return candidates


def _lease(candidate: ModelCandidate) -> float:
    timeout = cast("float | None", candidate.timeout)
    return NO_LIMIT_LEASE if timeout is None else LEASES_PER_TIMEOUT * timeout


async def _timed(stream: AsyncIterator[Any], deadline: Deadline) -> AsyncIterator[Any]:
    """Yield the items of a stream. Raises `TimeoutError` if the next takes too long."""
    iterator = aiter(stream)
    while True:
        async with deadline.limit("No event of the stream"):
            item = await anext(iterator, None)
        if item is None:
            return
        yield item


def _created(model: Model) -> ResponseCreatedEvent:
    """Return the event by which followers withdraw the text of a stream that has failed."""
    response = Response.model_construct(
        id="", created_at=0, model=name_of(model), object="response", output=[], status="in_progress",
        tool_choice="auto", tools=[], parallel_tool_calls=True,
    )  # fmt: skip
    return ResponseCreatedEvent.model_construct(type="response.created", sequence_number=0, response=response)
