"""Budgets of calls that go to one of several models: the reservation, billed failures, and unknown prices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, ModelSettings, RunConfig, function_tool
from agents.testing import ModelStep, function_call

from django_agentexec import ModelCandidate, OpenAIRunner, ResilientModel, RunBudget, activity, task
from django_agentexec.budgets.commands import set_limit, set_limit_of_period
from django_agentexec.budgets.waits import resume_waiting
from django_agentexec.models import (
    Activity,
    AgentCall,
    BudgetLedger,
    BudgetWait,
    CallKind,
    CallState,
    Status,
)
from django_agentexec.resilience import breakers
from django_agentexec.testing import drain
from tests.support.activity_rows import messages
from tests.support.budget_rows import assert_nothing_leaks, budget, set_price, spent
from tests.support.contexts import Empty
from tests.support.failed_streams import failed, incomplete
from tests.support.scripted_models import PAID_SETTINGS, paid_model, say

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def clean() -> None:
    breakers.reset()


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """At the end of each test nothing is reserved, and activities cost what their calls have cost."""
    yield
    assert_nothing_leaks()


def agent(*models: Any, **options: Any) -> Agent[Any]:
    return Agent("Clerk", model=ResilientModel(list(models)), model_settings=PAID_SETTINGS, **options)


def run(handler: Callable[..., Any], **options: Any) -> Activity:
    task("clerk", max_retries=0, **options)(handler).enqueue(Empty())
    drain()
    return Activity.objects.get()


def answered_by(used: Agent[Any]) -> Activity:
    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(used, "Go.")).final_output)

    return run(handler)


def test_a_billed_try_is_charged() -> None:
    limit = budget("1")
    row = answered_by(agent(paid_model(failed(2_000)), paid_model(say("fine"))))

    assert (row.result, row.cost) == ("fine", Decimal("0.09")), row.error
    assert spent(limit) == (Decimal("0.09"), 0)


def test_a_billed_try_is_charged_to_all_budgets_of_its_call() -> None:
    everything, tokens = budget("1"), budget("10_000", name="Tokens", unit="tokens")

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, budget="0.50")
        return str((await runner.run(agent(paid_model(failed(2_000)), paid_model(say("fine"))), "Go.")).final_output)

    assert run(handler).status == Status.COMPLETE
    assert spent(everything) == (Decimal("0.09"), 0)
    assert spent(tokens) == (Decimal(3_001), 0)
    assert BudgetLedger.objects.get(own_limit="0.50").spent == Decimal("0.09")


@pytest.mark.parametrize("is_resilient", [True, False])
def test_an_answer_that_was_cut_is_charged(is_resilient: bool) -> None:
    limit = budget("1")
    cut = paid_model(incomplete(1_000))
    row = answered_by(agent(cut) if is_resilient else Agent("Clerk", model=cut, model_settings=PAID_SETTINGS))

    assert (row.status, row.cost) == (Status.ERROR, Decimal("0.03"))
    assert spent(limit) == (Decimal("0.03"), 0)


def test_billed_tries_use_up_a_budget() -> None:
    limit = budget("0.10")
    used = agent(paid_model(failed(2_000), failed(2_000)), paid_model(say("one"), say("two")))

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        await runner.run(used, "One.")
        return str((await runner.run(used, "Two.")).final_output)

    row = run(handler)
    assert row.waiting_for == "budget"
    assert spent(limit) == (Decimal("0.09"), 0)

    set_limit(limit, "1")
    drain()

    row = Activity.objects.get()
    assert (row.result, row.cost) == ("two", Decimal("0.18"))
    assert spent(limit) == (Decimal("0.18"), 0)


def test_the_reservation_covers_the_dearest_model() -> None:
    set_price("dear", output="300")
    limit = budget("0.20")
    cheap, dear = paid_model(say("cheap")), paid_model(name="dear")

    row = answered_by(agent(cheap, dear))
    assert row.waiting_for == "budget"
    assert (len(cheap.calls), BudgetWait.objects.get().amount) == (0, Decimal("0.30"))

    set_limit(limit, "0.30")
    drain()

    assert Activity.objects.get().result == "cheap"
    assert spent(limit) == (Decimal("0.03"), 0)


def test_the_reservation_is_that_of_the_longest_answer_of_a_model() -> None:
    budget("0.05")
    longer = ModelCandidate(paid_model(), settings=ModelSettings(max_tokens=2_000))

    assert answered_by(agent(paid_model(say("fine")), longer)).waiting_for == "budget"
    assert BudgetWait.objects.get().amount == Decimal("0.06")
    Activity.objects.get().delete()


def test_a_model_that_the_request_skips_is_not_reserved() -> None:
    set_price("dear", output="300")
    limit = budget("0.05")

    @function_tool
    def nothing() -> str:
        """Do nothing."""
        return ""

    without_tools = ModelCandidate(paid_model(name="dear"), supports=[])
    assert answered_by(agent(paid_model(say("fine")), without_tools, tools=[nothing])).result == "fine"
    assert spent(limit) == (Decimal("0.03"), 0)


def test_a_fallback_without_a_price_is_not_free() -> None:
    limit = budget("1")
    house = paid_model(say("house"), name="house")
    row = answered_by(agent(paid_model(ConnectionError("down")), house))

    assert row.waiting_for == "budget"
    assert "the price of house is unknown" in messages(row.agent_id)[-1]
    assert (BudgetWait.objects.get().model, len(house.calls)) == ("house", 0)
    assert resume_waiting() == 0

    set_price("house", output="10")
    assert resume_waiting() == 1
    drain()

    row = Activity.objects.get()
    assert (row.result, row.cost) == ("house", Decimal("0.01"))
    assert spent(limit) == (Decimal("0.01"), 0)


def test_a_notifying_budget_counts_a_fallback_without_a_price_as_estimated() -> None:
    limit = budget("1", action="notify")
    row = answered_by(agent(paid_model(ConnectionError("down")), paid_model(say("house"), name="house")))

    assert (row.result, row.cost) == ("house", None)
    assert spent(limit) == (Decimal("0.03"), 0)


def test_a_canceled_call_reserves_nothing_any_more() -> None:
    limit = budget("0.05")
    begun = asyncio.Event()

    async def hang(_: Any) -> ModelStep:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)
        hanging = asyncio.ensure_future(runner.run(agent(paid_model(ModelStep.respond(hang))), "One.", key="a"))
        await begun.wait()
        hanging.cancel()
        await asyncio.wait([hanging])
        return str((await runner.run(agent(paid_model(say("fine"))), "Two.", key="b")).final_output)

    row = run(handler)

    assert (row.status, row.result) == (Status.COMPLETE, "fine"), row.waiting_for
    assert spent(limit) == (Decimal("0.03"), 0)
    canceled = AgentCall.objects.get(path="~key=a", kind=CallKind.MODEL)
    assert (canceled.state, canceled.error) == (CallState.FAILED, "Canceled before its end.")


def test_a_retry_after_a_budget_that_fails_repeats_no_call() -> None:
    first = paid_model([function_call("nothing", {}, call_id="1")], say("fine"))

    @function_tool
    def nothing() -> str:
        """Do nothing."""
        return ""

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(agent(first, tools=[nothing]), "Go.")).final_output)

    row = run(handler, budget=RunBudget("0.05", action="fail"))
    assert (row.status, len(first.calls)) == (Status.ERROR, 1)
    assert "BudgetExceeded" in row.error

    set_limit_of_period(BudgetLedger.objects.get(), "1")
    activity.retry(row.agent_id)
    drain()

    row = Activity.objects.get()
    assert (row.status, row.result, len(first.calls), row.cost) == (Status.COMPLETE, "fine", 2, Decimal("0.06"))
    assert spent() == (Decimal("0.06"), 0)


def test_models_of_the_runner_and_names_of_a_provider_are_charged_once() -> None:
    limit = budget("1")

    class Provider:
        def get_model(self, name: str | None) -> Any:
            return paid_model(say(f"by {name}"), name="paid")

        async def aclose(self) -> None: ...

    async def handler(agent_id: UUID, context: Empty) -> str:
        config = RunConfig(model_provider=Provider())  # type: ignore[arg-type]
        runner = OpenAIRunner(agent_id, models=["big"])
        result = await runner.run(Agent("Clerk", model_settings=PAID_SETTINGS), "Go.", run_config=config)
        return str(result.final_output)

    assert run(handler).result == "by big"
    assert spent(limit) == (Decimal("0.03"), 0)
    assert AgentCall.objects.filter(kind=CallKind.MODEL).count() == 1
