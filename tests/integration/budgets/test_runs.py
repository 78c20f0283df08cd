"""What happens inside runs when a call is refused: nested agents, parallel runs, other frameworks, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Runner, function_tool
from agents.testing import ModelStep, ScriptedModel, function_call
from django.test import override_settings

from django_agentexec import BudgetExceeded, InvalidOption, OpenAIRunner, RunBudget, budget_threshold, task
from django_agentexec.budgets.commands import set_limit, set_limit_of_period
from django_agentexec.budgets.waits import resume_waiting, sweep
from django_agentexec.conf import user_settings
from django_agentexec.models import (
    Activity,
    ActivityLog,
    AgentCall,
    Budget,
    BudgetLedger,
    BudgetWait,
    CallKind,
    CallState,
    ModelPrice,
    Status,
)
from django_agentexec.tasks import registry
from django_agentexec.testing import drain
from tests.support.activity_rows import messages
from tests.support.budget_rows import budget, set_price, spent
from tests.support.contexts import Empty
from tests.support.scripted_models import PAID_SETTINGS, paid_model, say

pytestmark = pytest.mark.django_db(transaction=True)


def call(name: str, call_id: str) -> Any:
    return [function_call(name, {}, call_id=call_id)]


def agent(steps: ScriptedModel, name: str = "Clerk", **options: Any) -> Agent[Any]:
    return Agent(name, model=steps, model_settings=PAID_SETTINGS, **options)


def run(handler: Callable[..., Any]) -> Activity:
    task("clerk", max_retries=2, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    drain()
    return Activity.objects.get()


def again() -> Activity:
    """Resume what is covered by now."""
    assert resume_waiting() == 1
    drain()
    return Activity.objects.get()


@pytest.mark.parametrize("is_swallowed", [False, True])
def test_a_refusal_inside_a_tool_stops_the_runs_around_it(is_swallowed: bool) -> None:
    limit = budget("0.05")
    outer = paid_model(call("ask", "call_1"), say("outer"))
    inner = paid_model(say("inner"))
    tool_calls: list[int] = []

    @function_tool
    async def ask() -> str:
        """Ask another agent."""
        tool_calls.append(1)
        try:
            result = await Runner.run(agent(inner, "Inner"), "Help.")
        except Exception:
            if is_swallowed:
                return "It did not work."
            raise
        return str(result.final_output)

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(agent(outer, tools=[ask]), "Go.")).final_output)

    waiting = run(handler)
    assert waiting.waiting_for == "budget"
    assert (len(outer.calls), len(inner.calls)) == (1, 0)

    set_limit(limit, "1")
    drain()

    ended = Activity.objects.get()
    assert (ended.status, ended.result) == (Status.COMPLETE, "outer")
    assert (len(outer.calls), len(inner.calls), len(tool_calls)) == (2, 1, 2)
    tool = AgentCall.objects.get(kind=CallKind.TOOL)
    assert (tool.state, tool.output) == (CallState.DONE, "inner")  # not the text of the refusal
    assert spent() == (Decimal("0.09"), 0)


def test_a_call_in_progress_of_another_run_ends_before_the_suspension() -> None:
    limit = budget("0.05")
    begun, go_on = asyncio.Event(), asyncio.Event()
    slow, refused = paid_model(), paid_model(say("second"))

    async def answer(_: Any) -> ModelStep:
        begun.set()
        await go_on.wait()
        return ModelStep(output=say("first"))

    slow = paid_model(ModelStep.respond(answer))

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id)

        async def second() -> str:
            await begun.wait()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
            return str((await runner.run(agent(refused), "B", key="b")).final_output)

        async def first() -> str:
            return str((await runner.run(agent(slow), "A", key="a")).final_output)

        return " ".join(await asyncio.gather(first(), second()))

    assert run(handler).waiting_for == "budget"
    assert spent() == (Decimal("0.03"), 0)  # the answer of the first run is recorded

    set_limit(limit, "1")
    drain()

    assert Activity.objects.get().result == "first second"
    assert (len(slow.calls), len(refused.calls)) == (1, 1)


def test_a_budget_that_fails_can_be_handled() -> None:
    first, cheap = paid_model(call("nothing", "call_1"), say("never")), paid_model(say("cheap"), name="free")
    set_price("free", output="0")

    @function_tool
    def nothing() -> str:
        """Do nothing."""
        return ""

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, budget=RunBudget("0.04", action="fail"))
        with pytest.raises(BudgetExceeded, match=r"\$0.01 of \$0.04 is left"):
            await runner.run(agent(first, tools=[nothing]), "Go.")
        return str((await OpenAIRunner(agent_id).run(agent(cheap), "Go.")).final_output)

    ended = run(handler)

    assert (ended.status, ended.result) == (Status.COMPLETE, "cheap")
    assert len(first.calls) == 1


def test_an_unknown_price_is_not_free() -> None:
    budget("100")
    steps = paid_model(say("done"), name="house")

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(agent(steps), "Go.")).final_output)

    waiting = run(handler)
    assert waiting.waiting_for == "budget"
    assert "the price of house is unknown" in messages(waiting.agent_id)[-1]
    assert BudgetWait.objects.get().amount is None
    assert resume_waiting() == 0

    set_price("house", output="0")

    assert again().status == Status.COMPLETE


def test_a_budget_of_tokens_needs_no_price() -> None:
    budget("1500", unit="tokens")
    ModelPrice.objects.all().delete()
    steps = paid_model(say("one"))

    async def handler(agent_id: UUID, context: Empty) -> str:
        await OpenAIRunner(agent_id).run(agent(steps), "Go.")
        await OpenAIRunner(agent_id).run(agent(steps), "Again.")
        return "done"

    waiting = run(handler)

    assert waiting.waiting_for == "budget"
    assert spent() == (Decimal(1_000), 0)
    assert "of 1,500 tokens is left" in messages(waiting.agent_id)[-1]


def test_thresholds_are_announced_once_per_period(caplog: pytest.LogCaptureFixture) -> None:
    budget("0.05", action="notify")
    announced: list[tuple[int, str]] = []

    def receive(ledger: BudgetLedger, budget: Budget | None, threshold: int, **_: Any) -> None:
        announced.append((threshold, budget.name if budget else ""))

    async def handler(agent_id: UUID, context: Empty) -> str:
        for _ in range(4):
            await OpenAIRunner(agent_id).run(agent(paid_model(say("one"))), "Go.")
        return "done"

    budget_threshold.connect(receive)
    try:
        ended = run(handler)
    finally:
        budget_threshold.disconnect(receive)

    assert ended.status == Status.COMPLETE  # it only notifies
    assert announced == [(50, "Acme"), (80, "Acme"), (100, "Acme")]
    assert "Budget Acme has reached 50 %." in messages(ended.agent_id)
    assert "has reached 50 %: $0.03 of $0.05 are spent." in caplog.text
    public = ActivityLog.objects.filter(message__contains="Acme").values_list("public_message", flat=True)
    assert set(public) == {"A budget has reached a threshold."}
    assert spent() == (Decimal("0.12"), 0)


def test_a_refused_call_announces_that_the_limit_is_reached(caplog: pytest.LogCaptureFixture) -> None:
    budget("0.05")
    announced: list[int] = []

    def receive(threshold: int, **_: Any) -> None:
        announced.append(threshold)

    async def handler(agent_id: UUID, context: Empty) -> str:
        for _ in range(3):
            await OpenAIRunner(agent_id).run(agent(paid_model(say("one"))), "Go.")
        return "done"

    budget_threshold.connect(receive)
    try:
        run(handler)
    finally:
        budget_threshold.disconnect(receive)

    assert announced == [50, 100]
    assert "cannot cover the next call: $0.03 of $0.05 are spent." in caplog.text
    assert "100 %" not in caplog.text


def test_runs_of_other_frameworks_are_charged_as_well() -> None:
    limit = budget("0.05")
    made: list[int] = []

    async def answer() -> dict[str, Any]:
        made.append(1)
        return {"text": "fine"}

    async def handler(agent_id: UUID, context: Empty) -> str:
        async with OpenAIRunner(agent_id).recorded_run("Clerk", "question") as recorded:
            for number in range(2):
                await recorded.model_call(
                    {"number": number},
                    answer,
                    model="paid",
                    usage=lambda _: {"output_tokens": 1_000},
                    cost=lambda _: Decimal("0.03"),
                )
        return "done"

    with override_settings(AGENTEXEC={**user_settings(), "BUDGET_OUTPUT_TOKENS": 1_000}):
        waiting = run(handler)
        assert (waiting.waiting_for, len(made)) == ("budget", 1)

        set_limit(limit, "1")
        drain()

    assert (Activity.objects.get().status, len(made)) == (Status.COMPLETE, 2)


def test_no_more_activities_are_resumed_than_the_budget_covers() -> None:
    limit = budget("0")

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(agent(paid_model(say("one"))), "Go.")).final_output)

    definition = task("clerk", max_retries=2)(handler)
    waiting = [definition.enqueue(Empty()).agent_id for _ in range(3)]
    drain()
    assert Activity.objects.suspended().count() == 3

    set_limit(limit, "0.07")  # for two calls
    resumed = list(Activity.objects.queued().order_by("agent_id").values_list("agent_id", flat=True))
    drain()

    assert resumed == waiting[:2]
    assert spent() == (Decimal("0.06"), 0)
    assert Activity.objects.suspended().count() == 1


def test_the_limit_of_one_run_can_be_raised() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id, budget="0.02").run(agent(paid_model(say("one"))), "Go.")).final_output)

    assert run(handler).waiting_for == "budget"
    with pytest.raises(InvalidOption, match="needs a limit"):
        set_limit_of_period(BudgetLedger.objects.get(), None)
    with pytest.raises(InvalidOption, match="is set by set_limit_of_period"):
        set_limit(BudgetLedger.objects.get(), "0.03")  # type: ignore[arg-type]

    set_limit_of_period(BudgetLedger.objects.get(), "0.03")
    drain()

    assert Activity.objects.get().status == Status.COMPLETE


@pytest.mark.parametrize("end", ["deleted", "deactivated", "period"])
def test_a_wait_ends_with_its_budget(end: str) -> None:
    limit = budget("0.01")

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(agent(paid_model(say("one"))), "Go.")).final_output)

    assert run(handler).waiting_for == "budget"
    match end:
        case "deleted":
            limit.delete()
        case "deactivated":
            limit.is_active = False
            limit.save()
        case "period":
            BudgetLedger.objects.update(ends_at="2020-01-01T00:00:00Z")
            limit.limit = Decimal(1)  # otherwise the new period would refuse it, too
            limit.save()

    assert resume_waiting() + sweep() == 1
    drain()
    assert Activity.objects.get().status == Status.COMPLETE


def test_a_canceled_wait_leaves_nothing_behind() -> None:
    budget("0.01")

    async def handler(agent_id: UUID, context: Empty) -> str:
        return str((await OpenAIRunner(agent_id).run(agent(paid_model(say("one"))), "Go.")).final_output)

    task("clerk")(handler).enqueue(Empty()).cancel()
    Activity.objects.all().delete()
    handle = registry.get("clerk").enqueue(Empty())
    drain()
    assert BudgetWait.objects.count() == 1

    handle.cancel()
    sweep()

    assert BudgetWait.objects.count() == 0
    assert spent() == (0, 0)
