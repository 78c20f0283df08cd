"""Streamed text from its writer to its followers: nothing is missing without a notice, nothing is there twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents import Agent, GuardrailFunctionOutput, OutputGuardrail
from agents.testing import ScriptedModel, assistant_message
from django.test import override_settings

from django_agentexec import Attempt, OpenAIRunner, QueueUnavailable, Status, activity, task
from django_agentexec.activity import streams
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.transitions import Complete, Operation
from django_agentexec.live import Follower, follow_activity
from django_agentexec.models import Activity
from django_agentexec.queues import Chunk, get_queue
from django_agentexec.queues.live import START
from django_agentexec.testing import drain
from tests.support.contexts import Empty
from tests.support.pool_process import PATIENCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]

FENCE = 1_790_000_000_000_000
Message = dict[str, Any]


def shown(messages: list[Message]) -> str:
    """Return what a page that follows the protocol shows in the end."""
    text, fence = "", None
    for message in messages:
        if message["type"] == "retract":
            text = ""
        elif message["type"] == "text":
            text = text[: message["offset"]] + message["text"]
        elif message["type"] == "delta":
            text = (text if message["fence"] == fence else "") + message["text"]
            fence = message["fence"]
    return text


async def until_end(messages: AsyncIterator[Message]) -> list[Message]:
    """Return the messages up to the first with the final status."""
    seen = []
    async with asyncio.timeout(PATIENCE):
        async for message in messages:
            seen.append(message)
            if message.get("activity", {}).get("status") == "complete":
                return seen
    raise AssertionError("The messages ended before the activity.")


async def followed(agent_id: UUID, result: Any, *, stored: int) -> list[Message]:
    """Follow the activity until `stored` messages about its text have arrived, and complete it."""
    seen: list[Message] = []
    async with aclosing(follow_activity(agent_id)) as messages, asyncio.timeout(PATIENCE):
        while len(kinds(seen)) < stored:
            seen.append(await anext(messages))
        await activity.acomplete(agent_id, result=result)
        return seen + await until_end(messages)


def kinds(messages: list[Message]) -> list[str]:
    """Return the types of the messages about text; the final status comes after all of them."""
    return [message["type"] for message in messages if message["type"] not in ("snapshot", "activity")]


@pytest.mark.parametrize("size", [150_000, 5_000_000])
async def test_long_text_arrives_whole(size: int) -> None:
    agent_id = await activity.acreate("answer")
    text = "".join(f"{number:09} " for number in range(size // 10))

    async with aclosing(follow_activity(agent_id)) as messages:
        await anext(messages)
        activity.stream(agent_id, text)
        assert await activity.aflush_stream()
        await activity.acomplete(agent_id)
        seen = await until_end(messages)

    assert shown(seen) == text
    assert max(len(message["text"]) for message in seen if message["type"] == "delta") <= 50_000
    assert "gap" not in kinds(seen)


@override_settings(AGENTEXEC={"STREAM_MAX_ENTRIES": 3, "QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"})
async def test_a_late_follower_is_notified_of_trimmed_text_and_receives_the_stored_text() -> None:
    agent_id = await activity.acreate("answer")
    for number in range(10):
        activity.stream(agent_id, f"{number} ")
        await activity.aflush_stream()

    seen = await followed(agent_id, "".join(f"{number} " for number in range(10)), stored=2)

    assert kinds(seen) == ["gap", "delta", "text"]
    by_type = {message["type"]: message for message in seen}
    assert by_type["gap"]["missing"] == 14
    assert by_type["delta"]["text"] == "7 8 9 "
    assert shown(seen) == "0 1 2 3 4 5 6 7 8 9 "


@override_settings(AGENTEXEC={"STREAM_MAX_ENTRIES": 1, "QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"})
async def test_where_the_result_is_no_text_the_gap_remains() -> None:
    agent_id = await activity.acreate("answer")
    for text in ("one ", "two"):
        activity.stream(agent_id, text)
        await activity.aflush_stream()

    seen = await followed(agent_id, {"answer": "one two"}, stored=2)

    assert kinds(seen) == ["gap", "delta"]


async def test_text_that_the_store_did_not_take_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    agent_id = await activity.acreate("answer")
    store = get_queue().live
    append = store.append

    def refuse(*_: object) -> None:
        raise QueueUnavailable("No answer.")

    activity.stream(agent_id, "one ")
    await activity.aflush_stream()
    monkeypatch.setattr(store, "append", refuse)
    activity.stream(agent_id, "two ")
    await activity.aflush_stream()
    monkeypatch.setattr(store, "append", append)
    activity.stream(uuid4(), "of another run")  # what is missing shows with the next write of any writer
    await activity.aflush_stream()

    seen = await followed(agent_id, "one two ", stored=2)

    assert kinds(seen) == ["delta", "gap", "text"]
    assert shown(seen) == "one two "


async def test_more_text_than_may_wait_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_WAITING", 10)
    agent_id = await activity.acreate("answer")
    store = get_queue().live
    append, is_busy, may_go_on = store.append, threading.Event(), threading.Event()

    def wait(chunks: Sequence[Chunk]) -> None:
        is_busy.set()
        assert may_go_on.wait(PATIENCE)
        append(chunks)

    with monkeypatch.context() as patched:
        patched.setattr(store, "append", wait)
        activity.stream(uuid4(), "of another run")
        assert is_busy.wait(PATIENCE)
        for text in ("0123456", "789abcd", "efg", "h"):
            activity.stream(agent_id, text)
    may_go_on.set()
    await activity.aflush_stream()
    activity.stream(agent_id, "end")
    await activity.aflush_stream()

    seen = await followed(agent_id, None, stored=3)

    assert [(m.get("text"), m.get("missing")) for m in seen if m["type"] in ("delta", "gap")] == [
        ("0123456789", None),
        (None, 8),
        ("end", None),
    ]


async def test_a_store_that_cannot_be_read_does_not_keep_the_end_from_followers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent_id = await activity.acreate("answer")

    def refuse(*_: object) -> None:
        raise QueueUnavailable("No answer.")

    async with aclosing(follow_activity(agent_id)) as messages:
        await anext(messages)
        monkeypatch.setattr(get_queue().live, "read", refuse)
        await activity.acomplete(agent_id, result="one two")
        seen = await until_end(messages)

    assert kinds(seen) == ["text"]
    assert shown(seen) == "one two"


async def test_text_that_an_attempt_writes_again_after_a_crash_appears_once() -> None:
    agent_id = await activity.acreate("answer")
    streams.stream_text(agent_id, "one two", 1, FENCE)
    await activity.aflush_stream()

    async with aclosing(follow_activity(agent_id)) as messages:
        seen = [await anext(messages), await anext(messages)]
        streams.stream_text(agent_id, "one two three", 1, FENCE + 1)  # another claim, the same attempt
        await activity.aflush_stream()
        await activity.acomplete(agent_id)
        seen += await until_end(messages)

    assert shown(seen) == "one two three"
    assert shown(await followed_after_the_end(agent_id)) == "one two three"


async def followed_after_the_end(agent_id: UUID) -> list[Message]:
    """Return the snapshot and the replay, which websockets send, too; `follow_activity` ends with the snapshot."""
    follower = Follower()
    await follower.follow_activity(agent_id)
    try:
        return [await follower.next(), await follower.next()]
    finally:
        await follower.close()


async def test_retracted_text_is_taken_back_and_not_replayed() -> None:
    agent_id = await activity.acreate("answer")

    async with aclosing(follow_activity(agent_id)) as messages:
        await anext(messages)
        activity.stream(agent_id, "You should sue.")
        await activity.aflush_stream()
        seen = [await anext(messages)]
        activity.stream(agent_id, " Really.")
        activity.retract_stream(agent_id)
        await activity.aflush_stream()
        await activity.acomplete(agent_id)
        seen += await until_end(messages)

    assert kinds(seen) == ["delta", "retract"]
    assert shown(seen) == ""
    assert "".join(chunk.text for chunk in get_queue().live.read({agent_id: START}, 100)) == ""


async def test_a_retraction_is_tried_until_the_store_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RETRY_INTERVAL", 0.01)
    agent_id = await activity.acreate("answer")
    store = get_queue().live
    append, failures = store.append, iter([1, 2])
    activity.stream(agent_id, "You should sue.")
    await activity.aflush_stream()

    def refuse_twice(chunks: Any) -> None:
        if next(failures, None):
            raise QueueUnavailable("No answer.")
        append(chunks)

    monkeypatch.setattr(store, "append", refuse_twice)
    activity.retract_stream(agent_id)

    async with aclosing(follow_activity(agent_id)) as messages, asyncio.timeout(PATIENCE):
        while (await anext(messages))["type"] != "retract":
            pass

    assert [chunk.text for chunk in store.read({agent_id: START}, 100)] == [""]


def reject(*arguments: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


def runs(handler: Any) -> Activity:
    task("writes")(handler).enqueue(Empty())
    drain()
    return Activity.objects.get()


def read(row: Activity) -> list[Chunk]:
    return get_queue().live.read({row.agent_id: START}, 1_000)


def test_text_that_an_output_guardrail_rejects_is_not_replayed() -> None:
    async def handler(agent_id: UUID, context: Empty) -> str:
        model = ScriptedModel([[assistant_message("You should sue.")]])
        agent = Agent("Clerk", model=model, output_guardrails=[OutputGuardrail(reject)])
        result = await OpenAIRunner(agent_id, stream=True).run(agent, "Hi")
        return str(result.final_output)

    row = runs(handler)

    assert (row.status, row.attempt) == (Status.ERROR, 1)
    assert [(chunk.text, chunk.retracts) for chunk in read(row)] == [("", True)]


def test_all_text_of_a_handler_can_be_read_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    readable: list[str] = []

    def record(operation: Operation) -> Activity:
        if isinstance(operation, Complete):
            readable.extend(chunk.text for chunk in get_queue().live.read({operation.agent_id: START}, 1_000))
        return apply_one(operation)

    monkeypatch.setattr("django_agentexec.testing.apply_one", record)

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> None:
        attempt.stream("The last word.")

    row = runs(handler)

    assert readable == ["The last word."]
    (chunk,) = read(row)
    assert (chunk.fence, chunk.offset) == (row.fence, 0)


def test_writers_that_alternate_are_kept_apart_by_their_labels() -> None:
    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> None:
        for number in range(20):
            attempt.stream(f"a{number} ", label="A")
            attempt.stream(f"b{number} ", label="B")

    chunks = read(runs(handler))

    texts = {label: "".join(chunk.text for chunk in chunks if chunk.label == label) for label in ("A", "B")}
    assert texts == {"A": "".join(f"a{n} " for n in range(20)), "B": "".join(f"b{n} " for n in range(20))}
