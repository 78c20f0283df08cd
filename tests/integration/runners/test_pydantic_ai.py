"""The durable runner for Pydantic AI of docs/frameworks.md, with the real package."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from django_agentexec.limits import get_store
from django_agentexec.models import Activity, AgentCall, CallKind, ModelPrice, Status
from tests.support.docs_code import ROOT, execute, problems_of

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, ModelResponse, ModelRetry, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from tests.support.contexts import Empty
from tests.support.durable_agents import DONE, fail_once, run
from tests.support.limit_stores import Clock, resumed, set_clock

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


PAGE = ROOT / "docs" / "frameworks.md"


class Verdict(BaseModel):
    company: str
    is_fine: bool


@pytest.fixture(scope="module")
def runner_class() -> Any:
    namespace: Any = SimpleNamespace(**execute(PAGE))
    return namespace.PydanticAIRunner


def scripted(*answers: list[Any]) -> FunctionModel:
    """Return a model that counts its requests and gives the answers in order."""
    remaining = list(answers)

    def answer(messages: Any, info: Any) -> ModelResponse:
        DONE["requests"] += 1
        return ModelResponse(parts=remaining.pop(0), model_name="scripted")

    return FunctionModel(answer, model_name="scripted")


def call(name: str, call_id: str, /, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(name, arguments, tool_call_id=call_id)


def test_a_later_attempt_repeats_no_call(runner_class: Any) -> None:
    model = scripted(
        [call("look_up", "1", name="Acme"), call("look_up", "2", name="Beta")],
        [call("look_up", "3", name="")],
        [call("final_result", "4", company="Acme", is_fine=True)],
    )

    async def handler(agent_id: UUID, context: Empty) -> Verdict:
        agent = Agent(model, output_type=Verdict, name="Clerk", retries=2)

        @agent.tool_plain
        def look_up(name: str) -> dict[str, str]:
            """Look a company up."""
            DONE[f"look_up {name}"] += 1
            if not name:
                raise ModelRetry("Name the company.")
            return {"company": name}

        result = await runner_class(agent_id).run(agent, "Check Acme and Beta.")
        fail_once()
        return Verdict.model_validate(result.output)

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.error
    assert row.result == {"company": "Acme", "is_fine": True}
    assert DONE["requests"] == 3
    assert (DONE["look_up Acme"], DONE["look_up Beta"], DONE["look_up "]) == (1, 1, 1)
    kinds = AgentCall.objects.values_list("kind", flat=True)
    assert Counter(kinds) == {CallKind.AGENT: 1, CallKind.MODEL: 3, CallKind.TOOL: 3}
    assert not AgentCall.objects.filter(has_changed=True).exists()
    assert row.usage["requests"] == 3
    assert row.usage["output_tokens"] > 0


def test_a_failure_between_calls_resumes_there(runner_class: Any) -> None:
    model = scripted([call("look_up", "1", name="Acme")], [TextPart("Acme is fine.")])

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent(model, name="Clerk")

        @agent.tool_plain
        async def look_up(name: str) -> str:
            """Look a company up."""
            DONE["look_up"] += 1
            fail_once()
            return f"{name} is fine"

        return str((await runner_class(agent_id).run(agent, "Check Acme.")).output)

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Acme is fine.", 2), row.error
    assert (DONE["requests"], DONE["look_up"]) == (2, 2)  # the tool has failed in the first attempt


def test_an_agent_that_a_tool_runs_is_recorded_below_the_tool(runner_class: Any) -> None:
    boss_model = scripted([call("ask_helper", "1")], [TextPart("done")])
    helper_model = scripted([TextPart("helped")])

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = runner_class(agent_id)
        boss, helper = Agent(boss_model, name="Boss"), Agent(helper_model, name="Helper")

        @boss.tool_plain
        async def ask_helper() -> str:
            """Ask the helper."""
            return str((await runner.run(helper, "Help.")).output)

        result = await runner.run(boss, "Work.")
        fail_once()
        return str(result.output)

    row = run(handler)

    assert (row.status, row.result, DONE["requests"]) == (Status.COMPLETE, "done", 3), row.error
    paths = dict(AgentCall.objects.filter(kind=CallKind.AGENT).values_list("agent", "path"))
    assert paths == {"Boss": "", "Helper": "/0:1"}


def test_requests_wait_for_their_limit(runner_class: Any, settings: Any, clock: Clock) -> None:
    limits = {"scripted": {"rpm": 1, "margin": 0}}
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": limits, "MODEL_LIMIT_WAIT": 0}
    set_clock(get_store(), clock)
    model = scripted([call("look_up", "1", name="Acme")], [TextPart("Acme is fine.")])

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent(model, name="Clerk")

        @agent.tool_plain
        async def look_up(name: str) -> str:
            """Look a company up."""
            DONE["look_up"] += 1
            return f"{name} is fine"

        return str((await runner_class(agent_id).run(agent, "Check Acme.")).output)

    row = run(handler)
    clock.forward(61)
    row = resumed(row)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Acme is fine.", 1), row.error
    assert (DONE["requests"], DONE["look_up"]) == (2, 1)


def test_requests_are_charged_to_the_budget_of_the_task(runner_class: Any) -> None:
    ModelPrice.objects.create(
        pattern="scripted", valid_from=date(2020, 1, 1), input_price=Decimal(0), output_price=Decimal(1_000)
    )
    model = scripted([TextPart("Acme is fine.")])

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent(model, name="Clerk", model_settings={"max_tokens": 1_000})
        return str((await runner_class(agent_id).run(agent, "Check Acme.")).output)

    row = run(handler, budget={"limit": "0.5", "action": "fail"}, max_retries=0)  # the estimate is a dollar
    assert (row.status, DONE["requests"]) == (Status.ERROR, 0)
    assert "BudgetExceeded" in row.error

    Activity.objects.all().delete()
    row = run(handler, budget=2)
    assert (row.status, DONE["requests"]) == (Status.COMPLETE, 1), row.error
    assert row.cost == Decimal(row.usage["output_tokens"]) / 1_000


def test_the_python_blocks_of_the_page_are_complete() -> None:
    assert problems_of(PAGE) == []
