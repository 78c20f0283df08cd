"""A wait that a handler catches: the activity is suspended all the same, and completes with its children's results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from django_agentexec import Attempt, Pipeline, Status, get_result, step, task
from django_agentexec.models import StepRun
from django_agentexec.testing import drain
from tests.support.activity_rows import messages, row
from tests.support.research_family import Companies, Company

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]


class Found(BaseModel):
    text: str


async def aspawned(attempt: Attempt, name: str) -> Any:
    return await attempt.aspawn("research", Company(name=name), key=name)


async def gathered_with_exceptions(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    children = [await aspawned(attempt, name) for name in context.names]
    found = await asyncio.gather(*(attempt.agather(child) for child in children), return_exceptions=True)
    return " ".join(str(one[0].about if isinstance(one, tuple) else one) for one in found)


async def returned_in_finally(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    found: tuple[Any, ...] = ()
    try:
        found = await attempt.agather(*[await aspawned(attempt, name) for name in context.names])
    finally:
        return " ".join(one.about for one in found)  # noqa: B012  # the mistake


async def caught(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    try:
        found = await attempt.agather(*[await aspawned(attempt, name) for name in context.names])
    except BaseException as error:  # the mistake
        return f"no luck: {error}"
    return " ".join(one.about for one in found)


async def replaced(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    try:
        found = await attempt.agather(*[await aspawned(attempt, name) for name in context.names])
    except BaseException as error:
        raise RuntimeError("no luck") from error
    return " ".join(one.about for one in found)


async def looked_at(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    tasks = [asyncio.ensure_future(attempt.agather(await aspawned(attempt, name))) for name in context.names]
    await asyncio.wait(tasks)
    return " ".join(str(one.exception() or one.result()[0].about) for one in tasks)


async def grouped(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    children = [await aspawned(attempt, name) for name in context.names]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt.agather(child)) for child in children]
    except BaseExceptionGroup:
        return "no luck"
    return " ".join(one.result()[0].about for one in tasks)


async def canceled_itself(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    try:
        found = await attempt.agather(*[await aspawned(attempt, name) for name in context.names])
    except BaseException:  # the mistake
        raise asyncio.CancelledError from None
    return " ".join(one.about for one in found)


def caught_in_sync_code(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
    found: tuple[Any, ...] = ()
    with suppress(BaseException):
        found = attempt.gather(*attempt.spawn_many("research", [Company(name=name) for name in context.names]))
    return " ".join(one.about for one in found)


@pytest.mark.parametrize(
    "handler",
    [
        gathered_with_exceptions,
        returned_in_finally,
        caught,
        replaced,
        looked_at,
        grouped,
        canceled_itself,
        caught_in_sync_code,
    ],
)
def test_a_handler_that_catches_a_wait_is_suspended_all_the_same(handler: Callable[..., Any]) -> None:
    handle = task("catches", max_retries=0)(handler).enqueue(Companies())

    drain()

    assert get_result(handle, timeout=0) == "Acme Globex"
    assert (row(handle.agent_id).attempt, row(handle.agent_id).retries) == (1, 0)


def test_all_that_was_waited_for_is_awaited() -> None:
    handle = task("catches", max_retries=0)(gathered_with_exceptions).enqueue(Companies())

    drain()

    assert messages(handle.agent_id).count("Waiting for 2 activities.") == 1


def test_the_log_tells_of_a_wait_that_was_caught(caplog: pytest.LogCaptureFixture) -> None:
    handle = task("catches", max_retries=0)(returned_in_finally).enqueue(Companies())

    with caplog.at_level(logging.WARNING, "django_agentexec"):
        drain()

    (warning,) = [record for record in caplog.records if "caught a wait" in record.getMessage()]
    assert str(handle.agent_id) in warning.getMessage()


@pytest.mark.parametrize("is_async", [True, False])
def test_a_step_that_catches_a_wait_has_no_checkpoint_of_it(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Catching(Pipeline, max_retries=0, name="catches"):
        if is_async:

            @step(0, max_retries=2, backoff=lambda retry, error: 0.0)
            async def only(self, context: Companies) -> Found:
                return Found(text=await gathered_with_exceptions(self.agent_id, context, self.attempt))
        else:

            @step(0, max_retries=2, backoff=lambda retry, error: 0.0)
            def only(self, context: Companies) -> Found:
                try:
                    names = [Company(name=name) for name in context.names]
                    found = self.attempt.gather(*self.attempt.spawn_many("research", names))
                except BaseException as error:
                    raise ValueError("no luck") from error
                return Found(text=" ".join(one.about for one in found))

    agent_id = Catching.enqueue(Companies()).agent_id

    drain()

    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, {"text": "Acme Globex"})
    assert StepRun.objects.get(activity_id=agent_id).retries == 0
    assert "Step 'only' of catches" in caplog.text
