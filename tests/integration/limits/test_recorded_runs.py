"""Model calls of recorded runs of other frameworks wait for their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from django_agentexec import BaseAgentRunner, task
from django_agentexec.limits import Bucket, MemoryLimits, Usage, get_store, limits
from django_agentexec.limits.bookkeeping import bookkeeping
from django_agentexec.models import Activity, AgentCall, CallKind, CallState, Status
from django_agentexec.tasks import registry
from django_agentexec.testing import drain
from tests.support.durable_agents import DONE, TASK, Empty
from tests.support.limit_stores import Clock, resumed, set_clock

pytestmark = pytest.mark.django_db(transaction=True)


class HttpError(Exception):
    status_code = 429


class Runner(BaseAgentRunner):
    async def run(self, *texts: str, **options: Any) -> str:
        async with self.recorded_run("Clerk", "Check.") as run:
            for text in texts:
                run.output = await run.model_call(
                    text,
                    lambda text=text: self.answer(text),
                    model="echo",
                    provider="house",
                    usage=lambda _: {"input_tokens": 30, "output_tokens": 20},
                    **options,
                )
        return str(run.output)

    async def answer(self, text: str) -> str:
        DONE[text] += 1
        if text == "refused" and DONE[text] == 1:
            raise HttpError("slow down")
        return text.upper()


@pytest.fixture
def clock(settings: Any) -> Iterator[Clock]:
    DONE.clear()
    settings.AGENTEXEC = {"QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue", "MODEL_LIMIT_WAIT": 0}
    clock = Clock()
    yield clock
    if TASK in {each.name for each in registry}:
        registry.unregister(TASK)


def limit(settings: Any, clock: Clock, pattern: str = "house/echo", **value: Any) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": {pattern: {"margin": 0, **value}}}
    set_clock(get_store(), clock)


def enqueue(handler: Callable[..., Any], **options: Any) -> Activity:
    handle = task(TASK, max_retries=1, backoff=lambda *_: 0.0)(handler).enqueue(Empty(), **options)
    drain()
    return Activity.objects.get(pk=handle.agent_id)


def usage(pattern: str = "house/echo") -> Usage:
    bookkeeping.flush(10)
    return get_store().usage(Bucket(pattern, limits().all[0]))


def test_a_long_wait_suspends_and_repeats_no_call(settings: Any, clock: Clock) -> None:
    limit(settings, clock, rpm=1)

    async def handler(agent_id: UUID, context: Empty) -> str:
        return await Runner(agent_id).run("first", "second")

    row = enqueue(handler)
    assert (row.status, row.waiting_for) == (Status.RUNNING, "limit"), row.error
    assert (DONE["first"], DONE["second"]) == (1, 0)

    clock.forward(61)
    row = resumed(row)
    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "SECOND", 1), row.error
    assert (DONE["first"], DONE["second"]) == (1, 1)
    calls = AgentCall.objects.filter(kind=CallKind.MODEL, set_aside=0)
    assert list(calls.values_list("state", "provider")) == [(CallState.DONE, "house")] * 2


def test_tokens_are_estimated_and_replaced(settings: Any, clock: Clock) -> None:
    limit(settings, clock, tpm=100_000)
    during: list[int] = []

    class Observing(Runner):
        async def answer(self, text: str) -> str:
            during.append(get_store().usage(Bucket("house/echo", limits().all[0])).tokens)
            return text

    async def handler(agent_id: UUID, context: Empty) -> str:
        return await Observing(agent_id).run("x" * 300, max_tokens=500)

    row = enqueue(handler)

    assert row.status == Status.COMPLETE, row.error
    assert during == [600]
    assert usage().tokens == 50


def test_a_refusal_closes_the_limit_and_the_retry_waits(settings: Any, clock: Clock) -> None:
    limit(settings, clock, rpm=100)

    async def handler(agent_id: UUID, context: Empty) -> str:
        return await Runner(agent_id).run("refused")

    row = enqueue(handler)

    assert (row.status, row.waiting_for, row.attempt) == (Status.RUNNING, "limit", 2), row.error
    assert usage().closed == pytest.approx(1)


def test_a_run_that_is_not_recorded_waits_in_its_slot(settings: Any, clock: Clock) -> None:
    limit(settings, clock, rpm=100)

    async def handler(agent_id: UUID, context: Empty) -> str:
        return await Runner(agent_id, durable=False).run("first")

    assert enqueue(handler).result == "FIRST"
    assert usage().requests == 1


def test_models_without_a_limit_make_no_round_trip(
    settings: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(settings, clock, "other*", rpm=1)

    def fail(*_: Any) -> None:
        raise AssertionError("a round trip")

    monkeypatch.setattr(MemoryLimits, "reserve", fail)

    async def handler(agent_id: UUID, context: Empty) -> str:
        return await Runner(agent_id).run("first", "second")

    assert enqueue(handler).result == "SECOND"


@pytest.mark.asyncio
async def test_unit_tests_have_no_limits(settings: Any, clock: Clock) -> None:
    limit(settings, clock, rpm=1)
    runner = Runner(UUID(int=1))

    async def add_usage(usage: Any) -> None:
        """As without a database."""

    runner.add_usage = add_usage  # type: ignore[method-assign]
    assert await runner.run("first", "second") == "SECOND"
    assert usage().requests == 0
