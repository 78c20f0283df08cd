"""`BaseAgentRunner.recorded_run`: model and tool calls of any framework are recorded and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, TypeAdapter

from django_agentexec import BaseAgentRunner, InvalidOption, approvals, task, tool_key
from django_agentexec.calls.recording import UNKNOWN_OUTCOME, RecordedRun
from django_agentexec.models import Activity, AgentCall, Approval, CallKind, CallState, Status
from django_agentexec.testing import drain
from tests.support.contexts import Empty
from tests.support.durable_agents import DONE, fail_once, run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


class Answer(BaseModel):
    text: str


class Runner(BaseAgentRunner):
    """A runner without a framework."""

    price = Decimal("0.5")

    async def run(self, question: str) -> None:
        """Not used."""

    async def ask(self, run: RecordedRun, text: str) -> Answer:
        """Ask the model, which repeats the text."""

        async def call() -> Answer:
            DONE[text] += 1
            return Answer(text=text)

        return await run.model_call(
            text,
            call,
            model="echo",
            load=Answer.model_validate,
            usage=lambda answer: {"input_tokens": 3, "output_tokens": 2},
            cost=lambda answer: self.price,
        )

    async def use(self, run: RecordedRun, call_id: str, **options: Any) -> str:
        """Use a tool."""

        def tool() -> str:
            DONE[f"tool {call_id}"] += 1
            DONE[tool_key()] += 1
            return f"output {call_id}"

        return await run.tool_call(call_id, "look_up", {"id": call_id}, tool, **options)


def places() -> list[tuple[str, str, int, str, str]]:
    rows = AgentCall.objects.order_by("path", "id")
    return [(call.path, call.kind, call.ordinal, call.call_id, call.state) for call in rows]


def test_a_later_attempt_repeats_no_call() -> None:
    replaying: list[bool] = []

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = Runner(agent_id)
        async with runner.recorded_run("Clerk", "Check.") as run:
            first = await runner.ask(run, "first")
            replaying.append(run.is_replaying)
            outputs = await asyncio.gather(runner.use(run, "1"), runner.use(run, "2"))
            fail_once()
            second = await runner.ask(run, f"second {first.text} {outputs}")
            run.output = second
        return second.text

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.error
    assert row.result == "second first ['output 1', 'output 2']"
    assert (DONE["first"], DONE["tool 1"], DONE["tool 2"]) == (1, 1, 1)
    assert replaying == [False, True]
    assert places() == [
        ("", "agent", 0, "", "done"),
        ("", "model", 0, "", "done"),
        ("", "tool", 0, "1", "done"),
        ("", "tool", 0, "2", "done"),
        ("", "model", 1, "", "done"),
    ]
    assert row.usage == {"requests": 2, "input_tokens": 6, "output_tokens": 4, "total_tokens": 10}
    assert row.cost == Decimal("1.0")
    assert AgentCall.objects.get(kind=CallKind.AGENT).output == {"text": row.result}
    call = AgentCall.objects.get(kind=CallKind.TOOL, call_id="1")
    assert (call.agent, call.name, call.arguments, call.output) == ("Clerk", "look_up", {"id": "1"}, "output 1")
    assert DONE[f"{row.agent_id}:/0:1"] == 1


def test_runs_inside_a_tool_and_beside_a_run_have_places_of_their_own() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        runner = Runner(agent_id)

        async def helper() -> str:
            async with runner.recorded_run("Helper", "help") as inner:
                return (await runner.ask(inner, "inner")).text

        async with runner.recorded_run("Clerk", "Check.") as run:
            await runner.ask(run, "outer")
            await run.tool_call("1", "help", {}, helper)
            async with runner.recorded_run("Guard", "guard") as guard:
                await runner.ask(guard, "guarded")
            fail_once()

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.error
    assert (DONE["outer"], DONE["inner"], DONE["guarded"]) == (1, 1, 1)
    agents = dict(AgentCall.objects.filter(kind=CallKind.AGENT).values_list("agent", "path"))
    assert agents["Clerk"] == ""
    assert agents["Helper"] == "/0:1"
    assert agents["Guard"].startswith("^Guard:")


def test_overlapping_runs_with_keys_find_their_calls() -> None:
    async def handler(agent_id: UUID, context: Empty) -> list[str]:
        runner = Runner(agent_id)

        async def one(name: str) -> str:
            async with runner.recorded_run("Clerk", DONE["fail"], key=name) as run:
                return (await runner.ask(run, name)).text

        names = ["a", "b"] if not DONE["fail"] else ["b", "a"]
        answers = sorted(await asyncio.gather(*map(one, names)))
        fail_once()
        return answers

    assert run(handler).result == ["a", "b"]
    assert (DONE["a"], DONE["b"]) == (1, 1)


def test_a_changed_input_makes_the_calls_again_if_wanted() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        runner = Runner(agent_id)
        async with runner.recorded_run("Clerk", DONE["fail"], on_change="restart") as run:
            await runner.ask(run, "question")
        fail_once()

    assert run(handler).status == Status.COMPLETE
    assert DONE["question"] == 2
    assert AgentCall.objects.current().count() == 2


def test_a_failed_model_call_and_a_failed_tool_are_repeated() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = Runner(agent_id)

        async def refuse() -> Answer:
            fail_once()
            raise AssertionError

        def broken() -> str:
            DONE["broken"] += 1
            raise ValueError("broken")

        async with runner.recorded_run("Clerk") as run:
            with suppress(AssertionError):  # a framework that tries again
                await run.model_call("question", refuse)
            answer = await runner.ask(run, "question")
            with suppress(ValueError):
                await run.tool_call("1", "broken", {}, broken)
        return answer.text

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "question", 2), row.error
    assert places()[1:] == [("", "model", 0, "", "done"), ("", "tool", 0, "1", "failed")]
    assert AgentCall.objects.get(kind=CallKind.TOOL).error == "ValueError: broken"


@pytest.mark.parametrize(
    ("in_doubt", "output", "calls", "state"),
    [("rerun", "output 1", 1, CallState.DONE), ("fail", UNKNOWN_OUTCOME, 0, CallState.IN_DOUBT)],
)
def test_a_tool_whose_process_died_follows_its_policy(in_doubt: str, output: str, calls: int, state: CallState) -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = Runner(agent_id)
        async with runner.recorded_run("Clerk") as run:
            await runner.ask(run, "question")
            await runner.use(run, "1", in_doubt=in_doubt)
            return await runner.use(run, "1", in_doubt=in_doubt)

    agent_id = task("clerk")(handler).enqueue(Empty()).agent_id
    AgentCall.objects.create(activity_id=agent_id, kind=CallKind.TOOL, call_id="1", name="look_up")  # started
    drain()

    assert Activity.objects.get().result == output
    assert DONE["tool 1"] == calls
    assert AgentCall.objects.get(kind=CallKind.TOOL).state == state


@pytest.mark.parametrize(
    ("decide", "output", "calls", "state"),
    [
        (lambda asked: approvals.approve(asked.pk), "output 1", 1, CallState.DONE),
        (lambda asked: approvals.answer(asked.pk, "It was sent."), "It was sent.", 0, CallState.DONE),
        (
            lambda asked: approvals.reject(asked.pk, reason="Unclear."),
            f"{UNKNOWN_OUTCOME} Unclear.",
            0,
            CallState.IN_DOUBT,
        ),
    ],
    ids=["again", "outcome", "rejected"],
)
def test_a_person_decides_about_a_tool_whose_process_died(
    decide: Callable[[Approval], object], output: str, calls: int, state: CallState
) -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = Runner(agent_id)
        async with runner.recorded_run("Clerk") as run:
            await runner.ask(run, "question")
            await runner.use(run, "1", in_doubt="ask")
            return await runner.use(run, "1", in_doubt="ask")

    agent_id = task("clerk")(handler).enqueue(Empty()).agent_id
    AgentCall.objects.create(activity_id=agent_id, kind=CallKind.TOOL, call_id="1", name="look_up")  # started
    drain()
    asked = Approval.objects.get()
    waiting = Activity.objects.get()
    assert (asked.kind, asked.tool, waiting.waiting_for, DONE["tool 1"]) == ("in_doubt", "look_up", "approval", 0)

    decide(asked)
    drain()

    assert (Activity.objects.get().result, DONE["tool 1"], DONE["question"]) == (output, calls, 1)
    assert AgentCall.objects.get(kind=CallKind.TOOL).state == state


def test_a_stated_output_that_cannot_be_loaded_is_asked_for_again() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        async with Runner(agent_id).recorded_run("Clerk") as run:
            load = TypeAdapter(dict[str, int]).validate_python
            found = await run.tool_call("1", "look_up", {}, lambda: {}, load=load, in_doubt="ask")
        return f"{found['stock']} left"

    agent_id = task("clerk")(handler).enqueue(Empty()).agent_id
    AgentCall.objects.create(activity_id=agent_id, kind=CallKind.TOOL, call_id="1", name="look_up")  # started
    drain()
    approvals.answer(Approval.objects.get().pk, "There are 5.")
    drain()

    again = Approval.objects.exclude(title="").get()
    waiting = Activity.objects.get()
    assert (again.kind, again.is_pending, waiting.waiting_for, waiting.attempt) == ("in_doubt", True, "approval", 1)
    assert again.title.startswith("look_up: the stated output cannot be used (ValidationError: ")
    assert again.title.endswith("State it again.")
    approvals.answer(again.pk, {"stock": 5})
    drain()

    assert Activity.objects.get().result == "5 left"
    assert AgentCall.objects.get(kind=CallKind.TOOL).output == {"stock": 5}


def test_a_run_that_fails_is_recorded_with_its_error() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        async with Runner(agent_id).recorded_run("Clerk"):
            raise TypeError("a bug")

    run(handler)

    call = AgentCall.objects.get()
    assert (call.kind, call.state, call.error) == (CallKind.AGENT, CallState.FAILED, "TypeError: a bug")


def test_without_durability_only_the_usage_is_saved() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = Runner(agent_id, durable=False)
        async with runner.recorded_run("Clerk") as run:
            answer = await runner.ask(run, "question")
            assert await run.tool_call("1", "add", {}, lambda: 5) == 5
            assert not run.is_replaying
        fail_once()
        return answer.text

    row = run(handler)

    assert (row.status, row.result, DONE["question"]) == (Status.COMPLETE, "question", 2), row.error
    assert row.usage["requests"] == 2
    assert not AgentCall.objects.exists()


def test_unknown_policies_are_errors() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        runner = Runner(agent_id)
        with pytest.raises(InvalidOption, match="on_change='again'"):
            async with runner.recorded_run("Clerk", on_change="again"):
                pass
        async with runner.recorded_run("Clerk") as run:
            with pytest.raises(InvalidOption, match="in_doubt='again'"):
                await runner.use(run, "1", in_doubt="again")

    assert run(handler).status == Status.COMPLETE


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-1", "1e12"])
def test_an_impossible_cost_is_unknown(monkeypatch: pytest.MonkeyPatch, price: str) -> None:
    monkeypatch.setattr(Runner, "price", Decimal(price))

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = Runner(agent_id)
        async with runner.recorded_run("Clerk", "Check.") as run:
            return (await runner.ask(run, "first")).text

    row = run(handler)

    assert (row.status, row.cost) == (Status.COMPLETE, None)
    assert AgentCall.objects.get(kind=CallKind.MODEL).cost is None
