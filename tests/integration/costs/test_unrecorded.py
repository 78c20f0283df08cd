"""The cost of runs whose calls are not recorded: added to the activity, and named beside the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, OpenAIProvider, OpenAIResponsesModel, RunConfig, RunHooks
from django.utils import timezone
from openai import AsyncOpenAI

from django_agentexec import BaseAgentRunner, InvalidOption, OpenAIRunner, ResilientModel, activity
from django_agentexec.costs.period import Period
from django_agentexec.costs.usage import usage_report
from django_agentexec.ids import first_id
from django_agentexec.models import Activity, AgentCall, Status
from tests.support.budget_rows import set_price
from tests.support.durable_agents import DONE, Empty, fail_once, run
from tests.support.management_commands import call as command
from tests.support.model_server import Answer, Call, ModelServer
from tests.support.priced_calls import call as record
from tests.support.priced_calls import run_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]

COST = Decimal("0.00164")  # (60 * 10 + 40 * 1 + 20 * 50) / 1,000,000
ANSWERS = 3


@pytest.fixture(autouse=True)
def price() -> None:
    set_price("large*", output="50", input="10", cached="1")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer([Answer("Fine.") for _ in range(ANSWERS)]) as server:
        yield server


def client_of(server: ModelServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)


def model_of(server: ModelServer, name: str = "large-2") -> OpenAIResponsesModel:
    return OpenAIResponsesModel(name, client_of(server))


def unrecorded(agent: Callable[[], Agent[Any]], **options: Any) -> Any:
    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id, durable=False).run(agent(), "Check.", **options)).final_output)

    return handler


def test_a_run_that_is_not_recorded_has_its_cost(server: ModelServer) -> None:
    row = run(unrecorded(lambda: Agent("Clerk", model=model_of(server))))

    assert (row.status, row.cost) == (Status.COMPLETE, COST), row.error
    assert row.usage["total_tokens"] == 120
    assert not AgentCall.objects.exists()


@pytest.mark.parametrize("is_config", [True, False])
@pytest.mark.parametrize("in_config", [True, False])
def test_models_are_found_by_their_names(server: ModelServer, is_config: bool, in_config: bool) -> None:
    values: dict[str, Any] = {"model_provider": OpenAIProvider(openai_client=client_of(server))}
    values |= {"model": "large-2"} if in_config else {}
    config = RunConfig(**values) if is_config else values

    row = run(unrecorded(lambda: Agent("Clerk", model="house" if in_config else "large-2"), run_config=config))

    assert (row.status, row.cost) == (Status.COMPLETE, COST), row.error


def test_hooks_of_the_caller_are_called(server: ModelServer) -> None:
    class Hooks(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            DONE[agent.name] += 1

    row = run(unrecorded(lambda: Agent("Clerk", model=model_of(server)), hooks=Hooks()))

    assert (row.cost, DONE["Clerk"]) == (COST, 1), row.error


def test_agents_used_as_tools_are_priced() -> None:
    answers = [Answer(calls=[Call("ask_helper", {"input": "Help."})]), Answer("Helped."), Answer("Fine.")]
    with ModelServer(answers) as server:

        def agent() -> Agent[Any]:
            helper = Agent("Helper", model=model_of(server, "large-helper"))
            tool = helper.as_tool("ask_helper", "Ask the helper.")
            return Agent("Clerk", model=model_of(server), tools=[tool])

        row = run(unrecorded(agent))

    assert (row.status, row.cost) == (Status.COMPLETE, 3 * COST), row.error


def test_each_attempt_pays_again(server: ModelServer) -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        await OpenAIRunner(agent_id, durable=False).run(Agent("Clerk", model=model_of(server)), "Check.")
        fail_once()

    row = run(handler)

    assert (row.attempt, row.cost) == (2, 2 * COST), row.error


def test_limits_and_prices_go_together(server: ModelServer, settings: Any) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": {"large*": {"rpm": 100}}}
    config = {"model_provider": OpenAIProvider(openai_client=client_of(server))}

    row = run(unrecorded(lambda: Agent("Clerk", model="large-2"), run_config=config))

    assert (row.status, row.cost) == (Status.COMPLETE, COST), row.error


def test_unknown_prices_stay_unknown(server: ModelServer) -> None:
    row = run(unrecorded(lambda: Agent("Clerk", model=model_of(server, "house"))))

    assert (row.status, row.cost, row.usage["total_tokens"]) == (Status.COMPLETE, None, 120), row.error


def test_a_model_that_chooses_among_others_has_no_price(server: ModelServer) -> None:
    row = run(unrecorded(lambda: Agent("Clerk", model=ResilientModel([model_of(server)]))))

    assert (row.status, row.cost) == (Status.COMPLETE, None), row.error


class Runner(BaseAgentRunner):
    async def run(self, **options: Any) -> None:
        async with self.recorded_run("Clerk", "Check.") as recorded:
            await recorded.model_call("Check.", self.answer, usage=lambda _: {"output_tokens": 100}, **options)

    async def answer(self) -> str:
        return "Fine."


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({"model": "large-2"}, Decimal("0.005")),
        ({"model": "large-2", "cost": lambda _: Decimal("0.5")}, Decimal("0.5")),
        ({"model": "house"}, None),
    ],
)
def test_calls_of_other_frameworks_have_the_price_of_their_model(
    durable: bool, options: dict[str, Any], cost: Decimal | None
) -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        await Runner(agent_id, durable=durable).run(**options)

    row = run(handler)

    assert (row.status, row.cost) == (Status.COMPLETE, cost), row.error


def test_code_adds_usage_with_its_cost() -> None:
    agent_id = run_of().pk
    activity.add_usage(agent_id, {"input_tokens": 5}, Decimal("0.25"))
    activity.add_usage(agent_id, {"input_tokens": 5}, Decimal("0.5"))
    activity.add_usage(agent_id, {"input_tokens": 5})

    row = Activity.objects.get(pk=agent_id)
    assert (row.cost, row.usage) == (Decimal("0.75"), {"input_tokens": 15})


@pytest.mark.parametrize("cost", [0.5, Decimal("NaN"), Decimal(-1), "1", Decimal("1e30"), True])
def test_impossible_costs_are_refused(cost: Any) -> None:
    agent_id = run_of().pk
    with pytest.raises(InvalidOption, match="must be an amount in US dollars"):
        activity.add_usage(agent_id, {"input_tokens": 5}, cost)
    assert Activity.objects.get(pk=agent_id).usage in (None, {})


def test_a_report_names_the_cost_of_activities_without_recorded_calls() -> None:
    today = Period.of(timezone.localdate(), timezone.localdate())
    for cost in ("0.25", "0.5", "0", None):
        Activity.objects.filter(pk=run_of(org="a").pk).update(cost=cost)
    recorded = run_of(org="a")
    Activity.objects.filter(pk=recorded.pk).update(cost="8")
    record(recorded, cost="8", started_at=timezone.now())
    Activity.objects.filter(pk=run_of(org="b").pk).update(cost="16")
    before = first_id(today.start - timedelta(seconds=1))
    Activity.objects.create(agent_id=before, agent_type="old", cost="32", metadata={"org": "a"})

    totals = usage_report(Activity.objects.for_metadata(org="a"), today, "task").totals

    assert (totals.unrecorded_runs, totals.unrecorded_cost) == (2, Decimal("0.75"))
    assert (totals.runs, totals.cost) == (1, Decimal(8))
    assert "4 further runs without recorded calls cost $48.75." in command("agentexec", "usage").err
