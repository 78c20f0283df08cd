"""Approvals for followers of an activity: an event when one is requested, decided or void."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_agentexec import activity, approvals
from django_agentexec.live import follow_activity
from django_agentexec.models import Approval
from django_agentexec.testing import memory_queue
from tests.support.activity_rows import start, suspend
from tests.support.approval_rows import waiting
from tests.support.pool_process import PATIENCE
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def queue(settings: Any) -> Iterator[None]:
    settings.CHANNEL_LAYERS = {}
    with memory_queue():
        yield


async def next_approval(messages: AsyncIterator[Any]) -> tuple[str, str]:
    async with asyncio.timeout(PATIENCE):
        async for message in messages:
            if message["type"] == "approval":
                return message["approval"]["tool"], message["approval"]["status"]
    raise AssertionError("The stream has ended.")


async def test_a_follower_gets_requests_and_decisions() -> None:
    agent_id = (await shout.aenqueue(Text())).agent_id
    await sync_to_async(start)(agent_id)
    request = Approval(activity_id=agent_id, tool="send_letter", call_id="1", arguments={"to": "Acme"})

    async with aclosing(follow_activity(agent_id)) as messages:
        assert (await anext(messages))["type"] == "snapshot"
        await sync_to_async(suspend)(agent_id, requests=[request], new_requests=[request])
        assert await next_approval(messages) == ("send_letter", "pending")
        await approvals.aapprove(request.id)
        assert await next_approval(messages) == ("send_letter", "approved")


async def test_a_late_follower_gets_what_is_pending_and_its_end() -> None:
    (approval,) = await sync_to_async(waiting)()

    async with aclosing(follow_activity(approval.activity_id)) as messages:
        assert await next_approval(messages) == ("send_letter", "pending")
        await activity.acancel(approval.activity_id)
        assert await next_approval(messages) == ("send_letter", "void")


async def test_a_follower_that_comes_back_gets_decisions_that_it_missed() -> None:
    (approval,) = await sync_to_async(waiting)()
    known = (await activity.adetail(approval.activity_id)).logs[-1].id
    await approvals.areject(approval.id)

    async with aclosing(follow_activity(approval.activity_id, after=known)) as messages:
        assert await next_approval(messages) == ("send_letter", "rejected")


async def test_large_arguments_are_left_out() -> None:
    (approval,) = await sync_to_async(waiting)({"arguments": {"text": "x" * 60_000}})

    async with aclosing(follow_activity(approval.activity_id)) as messages:
        async for message in messages:
            if message["type"] == "approval":
                break

    assert message["approval"]["arguments"] is None
    assert message["approval"]["truncated"] == ["arguments"]
