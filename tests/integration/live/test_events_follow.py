"""Following: a snapshot, then what is new, without gap or duplicate, through a channel layer or without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from django_agentexec import ActivityNotFound, activity
from django_agentexec.live import follow_activity, follow_feed
from django_agentexec.models import Activity
from tests.support.pool_process import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)

Message = dict[str, Any]
LAYERS = {
    "pubsub": None,
    "core": "channels_redis.core.RedisChannelLayer",
    "memory": "channels.layers.InMemoryChannelLayer",
    "none": "",
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest, settings: Any) -> str:
    """Use each kind of channel layer."""
    if (backend := LAYERS[request.param]) is not None:
        config = settings.CHANNEL_LAYERS["default"]["CONFIG"] if "redis" in backend else {}
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}} if backend else {}
    return str(request.param)


async def read_until(messages: AsyncIterator[Message], status: str) -> list[Message]:
    """Return the messages up to the first with this status."""
    seen = []
    async with asyncio.timeout(PATIENCE):
        async for message in messages:
            seen.append(message)
            if message.get("activity", {}).get("status") == status:
                break
    return seen


def lines(messages: list[Message]) -> list[str]:
    """Return the log as the client has it."""
    return [
        line["message"]
        for message in messages
        for line in (message["activity"]["logs"] if message["type"] == "snapshot" else message.get("logs", []))
    ]


async def test_a_follower_gets_the_log_up_to_the_end(layer: str) -> None:
    agent_id = await activity.acreate("import")

    async with aclosing(follow_activity(agent_id)) as messages:
        seen = [await anext(messages)]
        for number in range(30):
            await activity.aupdate(agent_id, f"line {number}", number)
        await activity.acomplete(agent_id)
        seen += await read_until(messages, "complete")

    assert seen[0]["type"] == "snapshot"
    assert seen[0]["activity"]["agent_id"] == str(agent_id)
    expected = ["Waiting to start.", *(f"line {n}" for n in range(30)), "Task completed successfully."]
    assert lines(seen) == expected
    assert seen[-1]["activity"]["percentage"] == 100
    assert seen[-1]["last_log_id"] == (await activity.adetail(agent_id)).logs[-1].id


async def test_following_ends_when_the_activity_has_ended() -> None:
    agent_id = await activity.acreate("import")
    seen = []

    async with asyncio.timeout(PATIENCE):
        async for message in follow_activity(agent_id):
            seen.append(message)
            if message["type"] == "snapshot":
                activity.stream(agent_id, "the whole text")
                await activity.aflush_stream()
                await activity.acomplete(agent_id)

    assert [message.get("text") for message in seen if message["type"] == "delta"] == ["the whole text"]
    assert lines(seen) == ["Waiting to start.", "Task completed successfully."]
    assert seen[-1]["activity"]["status"] == "complete"


async def test_following_ends_after_the_last_part_of_a_long_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.live.reading.MAX_LINES", 5)
    agent_id = await activity.acreate("import", "line 0")
    for number in range(1, 12):
        await activity.aupdate(agent_id, f"line {number}")
    await activity.acomplete(agent_id)

    async with asyncio.timeout(PATIENCE):
        seen = [message async for message in follow_activity(agent_id)]

    assert lines(seen) == [*(f"line {number}" for number in range(12)), "Task completed successfully."]
    assert [bool(message.get("has_more")) for message in seen] == [True] * (len(seen) - 1) + [False]


async def test_of_an_activity_that_has_ended_there_is_the_snapshot() -> None:
    agent_id = await activity.acreate("import")
    await activity.acancel(agent_id)

    async with asyncio.timeout(PATIENCE):
        (snapshot,) = [message async for message in follow_activity(agent_id)]

    assert (snapshot["type"], snapshot["activity"]["status"]) == ("snapshot", "canceled")


async def test_a_follower_resumes_after_a_line() -> None:
    agent_id = await activity.acreate("import")
    await activity.aupdate(agent_id, "known")
    known = (await activity.adetail(agent_id)).logs[-1].id
    await activity.aupdate(agent_id, "missed")

    async with aclosing(follow_activity(agent_id, after=known)) as messages:
        snapshot = await anext(messages)

    assert lines([snapshot]) == ["missed"]
    assert snapshot["last_log_id"] > known


async def test_a_log_longer_than_a_message_follows_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.live.reading.MAX_LINES", 3)
    agent_id = await activity.acreate("import", "line 0")
    for number in range(1, 10):
        await activity.aupdate(agent_id, f"line {number}")
    await activity.acomplete(agent_id, "end")
    seen: list[Message] = []

    async with aclosing(follow_activity(agent_id)) as messages, asyncio.timeout(PATIENCE):
        while "end" not in lines(seen):
            seen.append(await anext(messages))

    assert lines(seen) == [*(f"line {n}" for n in range(10)), "end"]
    assert [message.get("has_more", False) for message in seen] == [True, True, True, False]


async def test_there_is_nothing_to_follow_where_there_is_no_activity() -> None:
    with pytest.raises(ActivityNotFound):
        await anext(follow_activity(uuid4()))


async def test_the_end_of_the_row_is_told(layer: str) -> None:
    agent_id = await activity.acreate("import")

    async with aclosing(follow_activity(agent_id)) as messages, asyncio.timeout(PATIENCE):
        await anext(messages)
        await Activity.objects.filter(pk=agent_id).adelete()
        seen = [message async for message in messages]

    assert [message["code"] for message in seen] == ["not_found"]


async def test_who_may_no_more_hears_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.live.subscriber.PING_INTERVAL", 0.1)
    monkeypatch.setattr("django_agentexec.live.subscriber.RECHECK_INTERVAL", 0.0)
    agent_id = await activity.acreate("import")
    seen: list[str] = []

    async def allowed() -> bool:
        return "ping" not in seen

    async with asyncio.timeout(PATIENCE):
        async for message in follow_activity(agent_id, allowed=allowed):
            seen.append(message["type"])

    assert seen == ["snapshot", "ping"]


async def test_a_feed_tells_of_what_begins_and_ends(layer: str) -> None:
    user = await User.objects.acreate(username="root", is_superuser=True, is_staff=True)
    first = await activity.acreate("import")

    async with aclosing(follow_feed("all", user)) as messages:
        snapshot = await anext(messages)
        await activity.acancel(first)
        canceled = await read_until(messages, "canceled")
        second = await activity.acreate("export")
        queued = await read_until(messages, "queued")

    assert [item["agent_id"] for item in snapshot["activities"]] == [str(first)]
    assert canceled[-1]["activity"]["agent_id"] == str(first)
    assert canceled[-1]["logs"] == []
    assert canceled[-1]["last_log_id"] > 0
    assert queued[-1]["activity"]["agent_id"] == str(second)


@override_settings(AGENTEXEC={"LIVE_INTERVAL": 0.05})
async def test_streamed_text_is_replayed_and_goes_on(layer: str) -> None:
    agent_id = await activity.acreate("answer")
    activity.stream(agent_id, "The lease ")
    activity.flush_stream()

    async with aclosing(follow_activity(agent_id)) as messages, asyncio.timeout(PATIENCE):
        await anext(messages)
        replayed = await anext(messages)
        activity.stream(agent_id, "ends in March.")
        live = await anext(messages)
    async with aclosing(follow_activity(agent_id, stream_after=replayed["stream_id"])) as messages:
        await anext(messages)
        again = await anext(messages)

    assert (replayed["type"], replayed["text"]) == ("delta", "The lease ")
    assert live["text"] == "ends in March."
    assert again == live


async def test_the_end_is_told_after_the_text() -> None:
    agent_id = await activity.acreate("answer")

    async with aclosing(follow_activity(agent_id)) as messages:
        await anext(messages)
        for number in range(200):
            activity.stream(agent_id, f"{number} ")
        await activity.aflush_stream()
        await activity.acomplete(agent_id)
        seen = await read_until(messages, "complete")

    text = "".join(message["text"] for message in seen if message["type"] == "delta")
    assert text == "".join(f"{number} " for number in range(200))
