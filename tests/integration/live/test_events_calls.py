"""Events of calls, and the types of log lines."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, handoff
from agents.testing import ScriptedModel
from asgiref.sync import sync_to_async
from django.utils import timezone

from django_agentexec import OpenAIRunner, activity, task
from django_agentexec.calls.queries import summary_of
from django_agentexec.live import follow_activity, messages
from django_agentexec.live.call_feed import MAX_WAITING, CallFeed, ReadCall
from django_agentexec.live.channel_layer import ChangeNotice
from django_agentexec.models import Activity, ActivityLog, AgentCall, CallKind, CallState
from django_agentexec.schemas import ActivityLogSchema
from django_agentexec.testing import drain, memory_queue
from tests.support.activity_rows import start
from tests.support.pool_process import PATIENCE
from tests.support.recorded_calls import DONE, Empty, begin_call, call, clerk, finish_call, say, two_look_ups

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def clean() -> None:
    DONE.clear()


def begin(agent_id: UUID) -> AgentCall:
    return begin_call(agent_id, name="look_up", arguments={"a": "secret"})


def finish(made: AgentCall) -> None:
    finish_call(made, CallState.FAILED, error="OSError: host=db")


async def test_a_follower_receives_the_start_and_the_end_of_calls() -> None:
    agent_id = (await clerk(two_look_ups()).aenqueue(Empty())).agent_id
    await sync_to_async(start)(agent_id)
    async with aclosing(follow_activity(agent_id)) as stream, asyncio.timeout(PATIENCE):
        assert (await anext(stream))["type"] == "snapshot"
        made = await sync_to_async(begin)(agent_id)
        started = await _next(stream, "call_started")
        await sync_to_async(finish)(made)
        finished = await _next(stream, "call_finished")
    assert (started["agent_id"], started["call"]["id"]) == (str(agent_id), str(made.id))
    assert (started["call"]["name"], started["call"]["state"]) == ("look_up", "started")
    assert "secret" not in str(started)
    assert (finished["call"]["state"], finished["call"]["error"]) == ("failed", "OSError: host=db")
    assert "host=db" not in str(messages.redacted(finished))


async def _next(stream: Any, wanted: str) -> Any:
    async for message in stream:
        if message["type"] == wanted:
            return message
    raise AssertionError(f"The stream ended without {wanted}.")


def test_a_client_that_does_not_read_does_not_collect_events() -> None:
    row = Activity.objects.get(pk=activity.create("t"))
    feed = CallFeed(row.agent_id)
    feed.start(row.updated_at)
    now = timezone.now()
    calls = [AgentCall(activity=row, kind=CallKind.TOOL, ordinal=n, started_at=now) for n in range(MAX_WAITING)]
    reads = [ReadCall(summary_of(each, 0), now) for each in calls]
    feed.accept(reads)
    assert not feed.has_room
    feed.take()
    feed.accept(reads)
    assert (feed.has_room, feed.take()) == (True, [])
    again = AgentCall(id=calls[0].id, activity=row, kind=CallKind.TOOL, started_at=now + timedelta(seconds=1))
    feed.accept([ReadCall(summary_of(again, 0), again.started_at)])
    assert [each["type"] for each in feed.take()] == ["call_started"]


def test_a_notice_of_an_earlier_release_has_no_calls() -> None:
    notice = ChangeNotice("agentexec.activity.1", {}, False, True)
    message = notice.as_message()
    assert ChangeNotice.from_message(message) == notice
    del message["calls"]
    assert ChangeNotice.from_message(message).calls is False


def test_log_lines_have_types() -> None:
    closer = Agent("Closer", model=ScriptedModel([say("Done.")]))
    scripted = ScriptedModel([[call("transfer_to_closer", "1")]])

    async def handler(agent_id: UUID, context: Empty) -> str:
        await activity.aupdate(agent_id, "Reading", 10)
        result = await OpenAIRunner(agent_id).run(Agent("Boss", model=scripted, handoffs=[handoff(closer)]), "Go.")
        return str(result.final_output)

    with memory_queue():
        agent_id = task("clerk", max_retries=0)(handler).enqueue(Empty()).agent_id
        drain()
    types = {line.message: line.type for line in activity.detail(agent_id).logs}
    assert (types["Waiting to start."], types["Task started."], types["Reading"]) == ("status", "status", "progress")
    assert types["Agent Boss hands over to Closer."] == "handoff"
    assert types["Task completed successfully."] == "status"


def test_lines_of_an_earlier_release_get_a_type() -> None:
    shared = {"id": 1, "message": "x", "created_at": timezone.now(), "percentage": 0, "attempt": 1}
    running, complete = (ActivityLog(status=status, **shared) for status in ("running", "complete"))
    assert ActivityLogSchema.model_validate(running).type == "progress"
    assert ActivityLogSchema.model_validate(complete).type == "status"
