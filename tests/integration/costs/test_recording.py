"""The cost of calls that a runner makes: stored with the call and its activity, once, and counted for Prometheus."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from agents import Agent, OpenAIResponsesModel
from openai import AsyncOpenAI

from django_agentexec import OpenAIRunner, monitoring, task
from django_agentexec.models import Activity, AgentCall, Status
from django_agentexec.monitoring import metrics
from django_agentexec.testing import drain
from tests.support.budget_rows import set_price
from tests.support.contexts import Empty
from tests.support.model_server import Answer, ModelServer, Tokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]


def run(server: ModelServer, names: list[str], *, fails_once: bool = False, name: str = "clerk") -> Activity:
    """Run an agent once per model, in one activity."""
    attempts: list[int] = []

    async def handler(agent_id: UUID, context: Empty) -> str:
        attempts.append(1)
        for name in names:
            client = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)
            agent = Agent("Clerk", model=OpenAIResponsesModel(name, client))
            await OpenAIRunner(agent_id).run(agent, "Check it.")
        if fails_once and len(attempts) == 1:
            raise ConnectionError("the first attempt fails")
        return "done"

    task(name, max_retries=1, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    drain()
    row = Activity.objects.get()
    assert row.status == Status.COMPLETE, row.error
    return row


COST = Decimal("0.00164")  # (60 * 10 + 40 * 1 + 20 * 50) / 1,000,000


def test_each_call_has_its_cost_and_a_retry_pays_nothing_again() -> None:
    set_price("large*", output="50", input="10", cached="1")
    with ModelServer([Answer("One."), Answer("Two.")]) as server:
        row = run(server, ["large-2", "house"], fails_once=True)
        host = server.base_url.split("/")[2]

    assert row.attempt == 2
    calls = AgentCall.objects.billed().order_by("id").values_list("name", "provider", "cost")
    assert list(calls) == [("large-2", host, COST), ("house", host, None)]
    assert row.cost == COST


def test_a_known_model_on_an_unknown_server_has_no_price_of_a_provider() -> None:
    with ModelServer([Answer("One.")]) as server:
        row = run(server, ["gpt-5"])

    assert (row.cost, AgentCall.objects.billed().get().cost) == (None, None)
    assert row.usage["total_tokens"] == 120


def test_tokens_and_cost_are_counted_by_task_and_model() -> None:
    set_price("large*", output="50", input="10", cached="1")
    with ModelServer([Answer("One."), Answer("Two."), Answer("Three.", tokens=Tokens(7, 0, 3, 0))]) as server:
        run(server, ["large-2", "large-2", "house"])

    metrics.counting.flush()
    found = monitoring.counters()
    assert found.cost == {("clerk", "large-2"): pytest.approx(float(2 * COST))}
    assert found.unpriced_tokens == {("clerk", "house"): 10}
    assert found.model_tokens["clerk", "large-2", "input_tokens"] == 200
    assert found.tokens["clerk", "input_tokens"] == 207


def test_the_number_of_models_in_the_metrics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_MODELS", 1)
    with ModelServer([Answer("One."), Answer("Two."), Answer("Three.")]) as server:
        run(server, ["house-1", "house-2", "house-3"], name="librarian")  # of whose models nothing is counted yet

    metrics.counting.flush()
    assert monitoring.counters().unpriced_tokens == {("librarian", "house-1"): 120, ("librarian", metrics.OTHER): 240}
