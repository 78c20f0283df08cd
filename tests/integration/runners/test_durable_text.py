"""The text of durable runs: followers see that of the recorded answers, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

from django_agentexec import OpenAIRunner, activity, task
from django_agentexec.models import Activity, Status
from django_agentexec.testing import drain
from tests.support.contexts import Empty
from tests.support.durable_agents import DONE
from tests.support.text_client import TextClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


def _message(text: str) -> ResponseOutputMessage:
    content = [ResponseOutputText(type="output_text", text=text, annotations=[])] if text else []
    return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=content)


class Writer(Model):
    """A model that streams its texts word by word. A text that ends in "..." is cut off by an error."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        text = self.texts.pop(0)
        response = Response.model_construct(id="r", output=[_message(text)], usage=None)
        added = ResponseOutputItemAddedEvent.model_construct(type="response.output_item.added", item=_message(""))
        yield ResponseCreatedEvent.model_construct(type="response.created", response=response, sequence_number=0)
        yield added
        for word in text.split():
            if word == "...":
                for _ in range(20):  # the run's other tasks publish the words before
                    await asyncio.sleep(0)
                raise ConnectionError("cut off")
            yield ResponseTextDeltaEvent.model_construct(type="response.output_text.delta", delta=f"{word} ")
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=response, sequence_number=0)


def run(handler: Callable[..., Any]) -> tuple[Activity, TextClient]:
    """Run to the end, with a follower that reads before each attempt, and return both."""
    handle = task("writer", max_retries=3, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    follower = TextClient(handle.agent_id)
    FOLLOWERS[:] = [follower]
    drain()
    return Activity.objects.get(), follower


FOLLOWERS: list[TextClient] = []


async def followed() -> None:
    """Let the follower read what is published up to now."""
    await activity.aflush_stream()
    FOLLOWERS[0].read()


def test_the_text_of_a_call_that_fails_is_withdrawn_within_the_attempt() -> None:
    model = Writer("One whole.", "Half of ...", "Two whole.")

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, stream=True)
        agent = Agent("Writer", model=model)
        await runner.run(agent, "First.")
        await followed()
        try:
            await runner.run(agent, "Second.")
        except ConnectionError:
            await followed()
            DONE["seen"] = FOLLOWERS[0].text.count("Half")
            await runner.run(agent, "Second, again.")
        return "done"

    row, follower = run(handler)

    assert row.status == Status.COMPLETE, row.error
    assert follower.read() == TextClient(row.agent_id).read() == "One whole. \n\nTwo whole. "
    assert (follower.rewinds, DONE["seen"]) == ([len("One whole. ")], 0)


def test_a_later_attempt_withdraws_text_that_it_does_not_replace() -> None:
    model = Writer("Half of ...", "")

    async def handler(agent_id: UUID, context: Empty) -> str:
        await followed()
        DONE["attempt"] += 1
        try:
            await OpenAIRunner(agent_id, stream=True, durable=True).run(Agent("Writer", model=model), "Go.")
        finally:
            await followed()
        return "done"

    row, follower = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.error
    assert follower.read() == TextClient(row.agent_id).read() == ""


def test_text_is_replayed_once_for_followers_of_a_retry() -> None:
    model = Writer("One.", "", "Two.")

    async def handler(agent_id: UUID, context: Empty) -> str:
        runner = OpenAIRunner(agent_id, stream=True)
        agent = Agent("Writer", model=model)
        for turn in range(2):
            await runner.run(agent, f"Turn {turn}")
        await followed()
        DONE["attempt"] += 1
        if DONE["attempt"] == 1:
            raise ConnectionError("after two runs")
        await runner.run(agent, "Last")
        return "done"

    row, follower = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.error
    assert follower.read() == TextClient(row.agent_id).read() == "One.\n\nTwo. "
    assert follower.rewinds == [0]
