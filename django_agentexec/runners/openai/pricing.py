"""Costs of runs that are not recorded: the cost of each answer is added to the activity, since calls have no rows."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from decimal import Decimal
from typing import Any

from agents import Agent, Model, ModelProvider, ModelResponse, RunConfig, RunHooks, RunResultStreaming

from django_agentexec.costs.prices import acost_of
from django_agentexec.models import AgentCall

from .hooks import JoinedHooks
from .model import DurableProvider
from .sdk_models import name_of, provider_of
from .tries import set_tokens

AddCost = Callable[[Decimal], None]
RunStreamed = Callable[..., RunResultStreaming]

_add_cost: ContextVar[AddCost | None] = ContextVar("agentexec_add_cost", default=None)


def priced(run_streamed: RunStreamed, add_cost: AddCost) -> RunStreamed:
    """Return a function that starts a run, and passes the cost of each answer to `add_cost`; also of runs inside it."""

    def run(*args: Any, **options: Any) -> RunResultStreaming:
        token = _add_cost.set(add_cost)  # the task of the run has a copy of the context
        try:
            return run_streamed(*args, **options)
        finally:
            _add_cost.reset(token)

    return run


def priced_run(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run whose answers are priced; outside of priced runs, the same."""
    add_cost = _add_cost.get()
    if add_cost is None:
        return options
    config, hooks = options.get("run_config"), options.get("hooks")
    given = config if isinstance(config, RunConfig) else RunConfig(**(config or {}))
    models = given.model_provider if isinstance(given.model_provider, NotingProvider) else None
    models = NotingProvider(given.model_provider) if models is None else models
    pricing = PricingHooks(given.model, models, add_cost)
    return {
        **options,
        "run_config": replace(config, model_provider=models)
        if isinstance(config, RunConfig)
        else {**(config or {}), "model_provider": models},
        "hooks": pricing if hooks is None else JoinedHooks(hooks, pricing),
    }


class NotingProvider(DurableProvider):
    """A provider that keeps the models that it returns, by the names that agents give them."""

    def __init__(self, inner: ModelProvider) -> None:
        super().__init__(inner, lambda model: model)
        self.models: dict[str | None, Model] = {}

    def get_model(self, model_name: str | None) -> Model:
        """Return a model of the inner provider."""
        model = self.models[model_name] = super().get_model(model_name)
        return model


class PricingHooks(RunHooks[Any]):
    """Hooks that calculate the cost of each answer. A model that chooses among others has no price."""

    def __init__(self, model: Model | str | None, models: NotingProvider, add_cost: AddCost) -> None:
        self._model, self._models, self._add_cost = model, models, add_cost

    async def on_llm_end(self, context: Any, agent: Agent[Any], response: ModelResponse) -> None:
        """Add the cost of an answer, if its price is known."""
        chosen = agent.model if self._model is None else self._model
        model = chosen if isinstance(chosen, Model) else self._models.models.get(chosen)
        if model is None or hasattr(model, "possible_calls"):
            return
        call = AgentCall(name=name_of(model)[:200], provider=provider_of(model))
        set_tokens(call, response.usage)
        if (cost := await acost_of(call)) is not None:
            self._add_cost(cost)
