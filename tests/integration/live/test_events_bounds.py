"""Live messages within bounds: a final status comes with the last lines, and every message fits into a frame."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_agentexec import activity
from django_agentexec.live import Follower, follow_activity, follow_feed
from django_agentexec.live.channel_layer import ChangeNotice, feed_topic
from django_agentexec.live.hub import ReadBatch, compare_feeds, current_hub
from django_agentexec.live.messages import MAX_TEXT
from django_agentexec.live.reading import read_activity, read_feed
from django_agentexec.live.subscriptions import ActivitySubscription, FeedSubscription, SendBuffer
from django_agentexec.models import FINISHED, Activity, ActivityLog
from django_agentexec.threads import in_thread
from tests.integration.api.test_api_events import events, signed_in
from tests.integration.api.test_api_events import url as events_url
from tests.integration.live.test_events_follow import PATIENCE, Message, lines, read_until
from tests.support.rest_api import admin

pytestmark = pytest.mark.django_db(transaction=True)

DAPHNE = 2**20
MANY = 1_700


@transaction.atomic
def write_at_once(agent_id: UUID, count: int, message: str = "line {number}") -> None:
    """Write so many lines in one transaction, the last of which is the activity's end."""
    now = timezone.now()
    columns = {"activity_id": agent_id, "attempt": 1, "created_at": now}
    lines = [
        ActivityLog(**columns, status="running", percentage=number % 100, message=message.format(number=number))
        for number in range(count - 1)
    ]
    ActivityLog.objects.bulk_create([*lines, ActivityLog(**columns, status="complete", percentage=100, message="end")])
    Activity.objects.filter(pk=agent_id).update(
        status="complete",
        percentage=100,
        latest_log_message="end",
        latest_log_timestamp=now,
        updated_at=now,
        finished_at=now,
    )


def check_end(seen: list[Message], expected: int) -> None:
    """Expect a final status in the last message alone, and all lines up to there."""
    ended = [message["activity"]["status"] in FINISHED for message in seen]
    assert ended == [False] * (len(seen) - 1) + [True]
    assert [bool(message.get("has_more")) for message in seen] == [True] * (len(seen) - 1) + [False]
    assert len(lines(seen)) == expected
    assert lines(seen)[-1] == "end"


async def test_a_final_status_comes_with_the_last_of_many_lines() -> None:
    run = await activity.acreate("import")
    await activity.aupdate(run, "begun")

    async with aclosing(follow_activity(run)) as messages, asyncio.timeout(PATIENCE):
        await anext(messages)
        await sync_to_async(write_at_once)(run, MANY)
        seen = await read_until(messages, "complete")

    check_end(seen, MANY)
    assert {message["activity"]["status"] for message in seen[:-1]} == {"running"}
    assert all(message["activity"]["finished_at"] is None for message in seen[:-1])
    assert [message["activity"]["percentage"] for message in seen] == [
        message["logs"][-1]["percentage"] for message in seen
    ]


async def subscribed(run: UUID) -> tuple[ActivitySubscription, FeedSubscription]:
    """Return a subscription of the activity and one of the feed, which are ready; no hub reads for them."""
    root = await User.objects.acreate(username="root", is_superuser=True, is_staff=True)
    followed, feed = ActivitySubscription(SendBuffer(), run), FeedSubscription(SendBuffer(), "all", root)
    followed.start((await in_thread(read_activity, run, None))[1])
    feed.start(await in_thread(read_feed, Activity.objects.all()))
    return followed, feed


async def test_the_feed_gets_the_final_status_before_a_follower_has_the_last_lines() -> None:
    run = await activity.acreate("import")
    followed, feed = await subscribed(run)
    await sync_to_async(write_at_once)(run, MANY)
    newest = (await ActivityLog.objects.filter(activity_id=run).alatest("id")).pk

    batch = ReadBatch()
    batch.add([followed], {})
    batch.add([feed], {run: newest})
    unfinished = await batch.distribute(await batch.read())
    part, change = followed.take()[-1], feed.take()[-1]

    assert unfinished == {followed}
    assert (part["activity"]["status"], part["has_more"]) == ("running", True)
    assert (change["activity"]["status"], change["activity"]["percentage"]) == ("complete", 100)
    assert part["last_log_id"] < change["last_log_id"] == newest
    assert feed.active == []


async def test_a_final_status_left_out_of_the_feed_is_sent_after_the_unfollow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.live.reading.FEED_SIZE", 0)  # as if 100 others were active
    run = await activity.acreate("import")
    root = await User.objects.acreate(username="root", is_superuser=True, is_staff=True)
    followed = {run}
    feed = FeedSubscription(SendBuffer(), "all", root, followed.__contains__)
    feed.start(await in_thread(read_feed, Activity.objects.all(), [run]))
    await activity.acomplete(run)

    await compare_feeds([feed])
    left_out = feed.take()
    followed.clear()
    feed.invalidate(run)
    await compare_feeds([feed])

    assert left_out == []
    assert [message["activity"]["status"] for message in feed.take()] == ["complete"]
    assert feed.active == []


async def test_a_snapshot_of_what_is_over_holds_back_the_end() -> None:
    run = await activity.acreate("import", "created")
    await sync_to_async(write_at_once)(run, MANY)
    await Activity.objects.filter(pk=run).aupdate(result={"answer": 42})

    async with aclosing(follow_activity(run)) as messages:
        seen = await read_until(messages, "complete")

    check_end(seen, MANY + 1)
    assert seen[0]["activity"]["result"] is None


async def test_a_log_that_ends_twice_shows_no_end_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.live.reading.MAX_LINES", 2)
    run = await activity.acreate("import")
    for status in ("error", "queued", "running", "canceled", "queued", "running", "complete"):
        await ActivityLog.objects.acreate(
            activity_id=run, status=status, message="end" if status == "complete" else status
        )
    await Activity.objects.filter(pk=run).aupdate(status="complete")

    async with aclosing(follow_activity(run)) as messages:
        seen = await read_until(messages, "complete")

    check_end(seen, 8)


async def test_server_sent_events_end_after_the_last_line() -> None:
    run = await activity.acreate("import", "created")
    client = await signed_in(await sync_to_async(admin)())
    stream = events(await client.get(events_url(run)))

    async with asyncio.timeout(PATIENCE):
        await anext(stream)
        await sync_to_async(write_at_once)(run, MANY)
        seen = [event.data async for event in stream]
        late = [event.data async for event in events(await client.get(events_url(run)))]

    check_end(seen, MANY)
    check_end(late, MANY + 1)


async def test_who_follows_feed_and_activity_is_told_of_the_end_once() -> None:
    root = await User.objects.acreate(username="root", is_superuser=True, is_staff=True)
    run, other = [await activity.acreate("import") for _ in range(2)]
    follower = Follower()
    seen: list[Message] = []
    try:
        async with asyncio.timeout(PATIENCE):
            await follower.follow_feed("all", root)
            await follower.follow_activity(run)
            for _ in range(2):
                await follower.next()
            await sync_to_async(write_at_once)(run, MANY)
            await activity.acomplete(other)
            current_hub().notify(ChangeNotice(feed_topic("all"), {run: 0}))
            while len(seen) < 2 or not {str(run), str(other)} <= {ended_id(message) for message in seen}:
                seen.append(await follower.next())
            await follower.unfollow(run)
            await Activity.objects.filter(pk=run).aupdate(status="running", updated_at=timezone.now())
            while seen[-1].get("activity", {}).get("status") != "running" or seen[-1]["logs"]:
                seen.append(await follower.next())
    finally:
        await follower.close()

    check_end([m for m in seen if m["activity"]["agent_id"] == str(run)][:-1], MANY)


def ended_id(message: Message) -> str:
    """Return the id of an activity that this message ends."""
    return str(message["activity"]["agent_id"]) if message["activity"]["status"] in FINISHED else ""


async def test_long_lines_are_cut_and_say_so() -> None:
    run = await activity.acreate("import", "short")
    await ActivityLog.objects.acreate(
        activity_id=run, status="running", message="x" * 1_000_000, traceback="y" * 1_000_000
    )
    await Activity.objects.filter(pk=run).aupdate(
        latest_log_message="x" * 1_000_000, error="z" * 1_000_000, traceback="y" * 1_000_000 + "the cause"
    )

    async with aclosing(follow_activity(run)) as messages, asyncio.timeout(PATIENCE):
        snapshot = await anext(messages)
        await activity.aupdate(run, "more")
        # A read may find the row as it was before the update, and the new line after it; then another message follows.
        while (news := await anext(messages))["activity"]["latest_log_message"] != "more":
            pass

    short, long = snapshot["activity"]["logs"]
    assert (len(long["message"]), long["truncated"], short.get("truncated")) == (MAX_TEXT, True, None)
    assert snapshot["activity"]["traceback"].endswith("the cause")
    assert set(snapshot["activity"]["truncated"]) == {"latest_log_message", "error", "traceback"}
    assert news["activity"]["truncated"] == ["error"]
    assert sent_size(snapshot) < 100_000


async def test_a_large_result_is_sent_by_reference() -> None:
    run = await activity.acreate("import", context={"text": "c" * 900_000}, metadata={"note": "n"})
    await activity.acomplete(run, result={"text": "\N{SNOWMAN}" * 1_100_000})

    async with aclosing(follow_activity(run)) as messages, asyncio.timeout(PATIENCE):
        snapshot = await anext(messages)

    assert snapshot["activity"]["result"] is None
    assert snapshot["activity"]["context"] == {}
    assert snapshot["activity"]["result_url"] == f"/agents/activities/{run}/result/"
    assert set(snapshot["activity"]["truncated"]) == {"context", "result"}
    assert sent_size(snapshot) < 100_000


async def test_a_small_result_is_sent_as_it_is() -> None:
    run = await activity.acreate("import")
    await activity.acomplete(run, result={"answer": 42})

    async with aclosing(follow_activity(run)) as messages, asyncio.timeout(PATIENCE):
        snapshot = await anext(messages)

    assert snapshot["activity"]["result"] == {"answer": 42}
    assert not {"truncated", "result_url"} & snapshot["activity"].keys()


async def test_no_message_of_a_long_log_is_larger_than_a_server_takes() -> None:
    run = await activity.acreate("import", "created")
    await sync_to_async(write_at_once)(run, 520, "\N{SNOWMAN}" * 20_000)

    async with aclosing(follow_activity(run)) as messages:
        seen = await read_until(messages, "complete")

    check_end(seen, 521)
    assert max(map(sent_size, seen)) < DAPHNE * 0.7


@override_settings(AGENTEXEC={"EXPOSE_METADATA": True})
async def test_a_large_snapshot_comes_in_parts() -> None:
    root = await User.objects.acreate(username="root", is_superuser=True, is_staff=True)
    large = {
        "latest_log_message": "\N{SNOWMAN}" * 20_000,
        "error": "\N{SNOWMAN}" * 20_000,
        "metadata": {"x": "y" * 40_000},
    }
    runs = [await activity.acreate("import") for _ in range(60)]
    await Activity.objects.filter(pk__in=runs).aupdate(**large)
    seen: list[Message] = []

    async with aclosing(follow_feed("all", root)) as messages, asyncio.timeout(PATIENCE):
        async for message in messages:
            seen.append(message)
            if not message.get("has_more"):
                break
        await activity.aupdate(runs[0], "news")
        news = await anext(messages)

    assert len(seen) > 3
    assert [message["type"] for message in seen] == ["snapshot"] * len(seen)
    assert [message.get("part", 1) for message in seen] == list(range(1, len(seen) + 1))
    assert {item["agent_id"] for message in seen for item in message["activities"]} == set(map(str, runs))
    assert max(map(sent_size, seen)) < DAPHNE * 0.7
    assert news["activity"]["agent_id"] == str(runs[0])


@override_settings(AGENTEXEC={"EXPOSE_METADATA": True})
async def test_large_metadata_is_left_out() -> None:
    run = await activity.acreate("import")
    await Activity.objects.filter(pk=run).aupdate(metadata={"x": "y" * 2_000_000})

    async with aclosing(follow_activity(run)) as messages, asyncio.timeout(PATIENCE):
        snapshot = await anext(messages)

    assert snapshot["activity"]["metadata"] == {}
    assert snapshot["activity"]["truncated"] == ["metadata"]


async def test_long_text_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    run = await activity.acreate("answer")
    text = "".join(chr(0x2600 + number % 200) for number in range(95_000))
    seen: list[Message] = []

    async with aclosing(follow_activity(run)) as messages, asyncio.timeout(PATIENCE):
        await anext(messages)
        activity.stream(run, text)
        while sum(len(message["text"]) for message in seen) < len(text):
            seen.append(await anext(messages))

    assert "".join(message["text"] for message in seen) == text
    assert max(map(sent_size, seen)) < DAPHNE * 0.7
    assert "stream_id" in seen[-1]


def sent_size(message: dict[str, Any]) -> int:
    """Return how many bytes the message has over a socket."""
    return len(json.dumps(message))
