"""Pauses in live messages: `paused` of snapshots and changes, although neither a pause nor its end changes a row."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_agentexec import activity, concurrency
from django_agentexec.live import follow_activity, follow_feed, hub
from django_agentexec.live.reading import read_activity, read_changes, read_feed
from django_agentexec.models import Activity
from tests.integration.live.test_events_follow import PATIENCE, Message
from tests.support.activity_rows import start
from tests.testapp.agents import Text, report

pytestmark = pytest.mark.django_db(transaction=True)


async def paused_as(messages: Any, expected: str) -> Message:
    """Return the next message of an activity with this value of `paused`."""
    async with asyncio.timeout(PATIENCE):
        async for message in messages:
            if message["type"] == "activity" and message["activity"]["paused"] == expected:
                return dict(message)
    raise AssertionError(expected)


async def test_a_follower_is_notified_of_a_pause_and_of_its_end() -> None:
    run = (await report.aenqueue(Text())).agent_id
    await concurrency.apause("task", report.name)

    async with aclosing(follow_activity(run)) as messages:
        assert (await anext(messages))["activity"]["paused"] == "task"
        await concurrency.aresume("task", report.name)
        assert (await paused_as(messages, ""))["logs"] == []
        await concurrency.apause("queue", "default")
        await paused_as(messages, "queue")


async def test_a_feed_is_notified_of_a_pause_and_of_its_end() -> None:
    root = await User.objects.acreate(username="root", is_superuser=True, is_staff=True)
    run = (await report.aenqueue(Text())).agent_id

    async with aclosing(follow_feed("all", root)) as messages:
        assert [item["paused"] for item in (await anext(messages))["activities"]] == [""]
        await concurrency.apause("queue", "default")
        assert (await paused_as(messages, "queue"))["activity"]["agent_id"] == str(run)
        await concurrency.aresume("queue", "default")
        await paused_as(messages, "")


def reads_of_pauses(read: Any, *arguments: Any) -> int:
    with CaptureQueriesContext(connection) as queries:
        read(*arguments)
    return sum("agentexec_pause" in query["sql"] for query in queries)


def test_neither_a_claim_nor_a_progress_report_costs_a_query_for_pauses() -> None:
    run, queued = report.enqueue(Text()).agent_id, report.enqueue(Text()).agent_id
    start(run)
    activity.update(run, "Reading", percentage=10)

    assert reads_of_pauses(read_changes, {run: 0}, {run: 0}) == 0
    assert reads_of_pauses(read_activity, run, None) == 0
    assert reads_of_pauses(read_changes, {run: 0, queued: 0}, {}) == 1
    assert reads_of_pauses(read_feed, Activity.objects.all()) == 1
    Activity.objects.filter(pk=queued).delete()
    assert reads_of_pauses(read_feed, Activity.objects.all()) == 0


async def test_the_poll_of_a_running_activity_reads_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    run = (await report.aenqueue(Text())).agent_id
    await sync_to_async(start)(run)
    monkeypatch.setattr("django_agentexec.live.hub.read_pauses", lambda: pytest.fail("read for a running activity"))
    monkeypatch.setattr("django_agentexec.live.hub.POLL_INTERVAL", 0.01)
    monkeypatch.setattr("django_agentexec.live.hub.CHECK_INTERVAL", 0.01)
    polled = asyncio.Event()
    loop = asyncio.get_running_loop()
    before, count = hub.read_versions, []

    def read_versions(topics: Any) -> Any:
        count.append(topics)
        if len(count) > 2:
            loop.call_soon_threadsafe(polled.set)
        return before(topics)

    monkeypatch.setattr(hub, "read_versions", read_versions)
    async with aclosing(follow_activity(run)) as messages, asyncio.timeout(PATIENCE):
        await anext(messages)
        await polled.wait()
