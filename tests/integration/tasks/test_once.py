"""`attempt.once`: a side effect of a handler happens once; later attempts read its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from threading import Barrier, Thread
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError
from pydantic import BaseModel

from django_agentexec import Attempt, InvalidOption, Pipeline, ResultError, step, task, tool_key
from django_agentexec.models import Activity, AgentCall, CallKind, CallState, Status
from django_agentexec.testing import drain, make_attempt
from tests.support import durable_agents
from tests.support.durable_agents import DONE, fail_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


class Order(BaseModel):
    number: int = 7


class Invoice(BaseModel):
    number: int
    lines: tuple[str, ...] = ()


def run(handler: Callable[..., Any]) -> Activity:
    return durable_agents.run(handler, context=Order())


def create_invoice(number: int) -> Invoice:
    DONE[f"invoice {number}"] += 1
    DONE[f"key {tool_key()}"] += 1
    return Invoice(number=number, lines=("one",))


async def acreate_invoice(number: int) -> Invoice:
    return create_invoice(number)


def test_a_later_attempt_reads_the_result_of_a_sync_handler() -> None:
    def handler(agent_id: UUID, context: Order, attempt: Attempt) -> int:
        invoice = attempt.once("invoice", partial(create_invoice, context.number))
        assert invoice == Invoice(number=7, lines=("one",))
        fail_once()
        return invoice.number

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, 7, 2), row.error
    assert DONE["invoice 7"] == 1
    call = AgentCall.objects.get()
    assert (call.kind, call.path, call.call_id, call.name) == (CallKind.ONCE, "", "invoice", "invoice")
    assert (call.state, call.output["number"], call.attempt) == (CallState.DONE, 7, 1)
    assert DONE[f"key {row.agent_id}:/once:invoice"] == 1


@pytest.mark.parametrize("function", [create_invoice, acreate_invoice])
def test_a_later_attempt_reads_the_result_of_an_async_handler(function: Any) -> None:
    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> int:
        invoice = await attempt.aonce("invoice", partial(function, context.number))
        assert invoice == Invoice(number=7, lines=("one",))
        fail_once()
        return int(invoice.number)

    row = run(handler)

    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, 7, 2), row.error
    assert DONE["invoice 7"] == 1


def test_a_call_that_fails_is_repeated() -> None:
    def pay() -> None:
        DONE["paid"] += 1
        fail_once()

    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> None:
        assert await attempt.aonce("pay", pay) is None

    row = run(handler)

    assert (row.status, row.attempt, DONE["paid"]) == (Status.COMPLETE, 2, 2), row.error
    assert AgentCall.objects.get().state == CallState.DONE


def test_a_call_whose_process_died_is_repeated_with_the_same_key() -> None:
    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> int:
        return (await attempt.aonce("invoice", partial(create_invoice, context.number))).number

    definition = task("billing")(handler)
    agent_id = definition.enqueue(Order()).agent_id
    AgentCall.objects.create(activity_id=agent_id, kind=CallKind.ONCE, call_id="invoice", name="invoice")  # started
    drain()

    assert Activity.objects.get().result == 7
    assert (DONE["invoice 7"], DONE[f"key {agent_id}:/once:invoice"]) == (1, 1)
    assert AgentCall.objects.get().state == CallState.DONE


def test_a_key_that_is_used_for_something_else_is_an_error_before_the_call() -> None:
    errors: list[str] = []

    def refund() -> int:
        DONE["refund"] += 1
        return 1

    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> None:
        for number in (1, 2):
            try:
                await attempt.aonce("invoice", partial(create_invoice, number))
            except InvalidOption as error:
                errors.append(str(error))
        for number in (1, 2):  # a closure's values count, too
            try:
                await attempt.aonce("other", lambda number=number: create_invoice(number), result_type=Invoice)
            except InvalidOption as error:
                errors.append(str(error))
        with pytest.raises(InvalidOption, match="refund"):
            await attempt.aonce("invoice", refund)
        assert (await attempt.aonce("invoice", partial(create_invoice, 1))).number == 1

    row = run(handler)

    assert row.status == Status.COMPLETE, row.error
    assert (DONE["invoice 1"], DONE["invoice 2"], DONE["refund"]) == (2, 0, 0)
    assert len(errors) == 2
    assert "'invoice'" in errors[0]
    assert "needs its own key" in errors[0]


def test_concurrent_calls_of_a_key_happen_once() -> None:
    started = Barrier(2)

    async def slow() -> int:
        DONE["slow"] += 1
        await asyncio.sleep(0)
        return 5

    def in_thread() -> int:
        DONE["thread"] += 1
        return 6

    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> list[int]:
        results = list(await asyncio.gather(*(attempt.aonce("slow", slow) for _ in range(5))))

        def call() -> None:
            started.wait(10)
            results.append(attempt.once("thread", in_thread))

        threads = [Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        return results

    row = run(handler)

    assert row.result == [5, 5, 5, 5, 5, 6, 6], row.error
    assert (DONE["slow"], DONE["thread"]) == (1, 1)


def test_a_waiting_call_proceeds_after_the_failure_of_the_first() -> None:
    async def unreliable() -> int:
        DONE["calls"] += 1
        await asyncio.sleep(0)
        if DONE["calls"] == 1:
            raise ConnectionError("gone")
        return 5

    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> int:
        calls = (attempt.aonce("call", unreliable) for _ in range(3))
        first, second, third = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, ConnectionError)
        assert (second, third) == (5, 5)
        return DONE["calls"]

    assert run(handler).result == 2


def test_a_call_inside_itself_is_an_error() -> None:
    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> None:
        async def outer() -> int:
            return await attempt.aonce("loop", outer)

        await attempt.aonce("loop", outer)

    row = run(handler)

    assert row.status == Status.ERROR
    assert "inside of itself" in row.error


def test_a_result_that_cannot_be_stored_is_an_error_that_mentions_the_side_effect() -> None:
    def wrong() -> int:
        DONE["wrong"] += 1
        return "text"  # type: ignore[return-value]

    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> int:
        return await attempt.aonce("wrong", wrong)

    row = run(handler)

    assert (row.status, row.attempt, DONE["wrong"]) == (Status.ERROR, 1, 1)  # no retry, which would repeat it
    assert "attempt.once('wrong') returned str, which does not fit int" in row.error
    assert ". The side effect has happened" in row.error
    assert AgentCall.objects.get().state == CallState.FAILED


@pytest.mark.parametrize(
    ("key", "function", "text"),
    [
        ("", lambda: 1, "1 to 200 characters"),
        ("k" * 201, lambda: 1, "1 to 200 characters"),
        ("pay", 5, "not callable"),
        ("pay", lambda: 1, "pass result_type"),
    ],
)
def test_unsuitable_arguments_are_errors_before_the_call(key: str, function: Any, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        make_attempt().once(key, function)


def test_a_type_that_changed_is_an_error_that_names_the_remedy() -> None:
    def old() -> str:
        return "seven"

    async def handler(agent_id: UUID, context: Order, attempt: Attempt) -> None:
        if not DONE["fail"]:
            await attempt.aonce("number", old)
            fail_once()
        await attempt.aonce("number", lambda: 7, result_type=int)

    row = run(handler)

    assert row.status == Status.ERROR
    assert "does not fit int" in row.error
    assert "use another key" in row.error


def test_steps_of_a_pipeline_have_keys_of_their_own() -> None:
    class Shop(Pipeline):
        name = "shop"

        @step(0, max_retries=1, backoff=lambda *_: 0.0)
        async def first(self, context: Order) -> int:
            # A method of this object, which is another object in the second try.
            number = (await self.attempt.aonce("invoice", lambda: self.create(1), result_type=Invoice)).number
            fail_once()
            return number

        @step(1)
        def second(self, number: int) -> Invoice:
            return self.attempt.once("invoice", partial(create_invoice, 2))

        def create(self, number: int) -> Invoice:
            return create_invoice(number)

    Shop.enqueue(Order())
    drain()

    assert Activity.objects.get().status == Status.COMPLETE, Activity.objects.get().error
    assert (DONE["invoice 1"], DONE["invoice 2"]) == (1, 1)
    assert set(AgentCall.objects.values_list("path", "call_id")) == {("first", "invoice"), ("second", "invoice")}


def test_a_transaction_of_the_handler_is_an_error_before_the_call() -> None:
    def handler(agent_id: UUID, context: Order, attempt: Attempt) -> None:
        with transaction.atomic(), pytest.raises(TransactionManagementError, match="outside of the block"):
            attempt.once("invoice", partial(create_invoice, 1))

    assert run(handler).status == Status.COMPLETE
    assert DONE["invoice 1"] == 0


def test_unit_tests_call_the_function_and_check_its_result() -> None:
    def wrong() -> int:
        return "text"  # type: ignore[return-value]

    def number() -> int:
        DONE["number"] += 1
        return 5

    attempt = make_attempt()

    assert [attempt.once("number", number) for _ in range(2)] == [5, 5]
    assert DONE["number"] == 2
    with pytest.raises(ResultError):
        attempt.once("wrong", wrong)
    assert not AgentCall.objects.exists()
