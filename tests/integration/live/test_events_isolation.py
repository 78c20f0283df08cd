"""What cannot be read for one follower does not affect the others, and an impossible position is refused at once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from django_agentexec import InvalidOption, activity
from django_agentexec.live import follow_activity, follow_feed
from django_agentexec.models import Activity
from django_agentexec.policy import StaffPolicy
from django_agentexec.queues import get_queue
from django_agentexec.queues.redis import RedisQueue
from tests.integration.live.test_events_follow import PATIENCE, lines, read_until
from tests.support.queue_backends import stream_key_of

pytestmark = pytest.mark.django_db(transaction=True)

POLICY = f"{__name__}.PolicyThatFailsForOne"


class PolicyThatFailsForOne(StaffPolicy):
    """Raises once this user's name is `broken`."""

    def visible(self, user: Any, activities: Any) -> Any:
        if user.first_name == "broken":
            raise ZeroDivisionError("a fault of the project's policy")
        return super().visible(user, activities)


@pytest.mark.parametrize("position", ["1-18446744073709551616", "1-\N{ARABIC-INDIC DIGIT ONE}", "$", "1", 7])
async def test_an_impossible_position_in_the_text_is_refused(position: Any) -> None:
    run = await activity.acreate("answer")

    with pytest.raises(InvalidOption, match="stream_after"):
        await anext(follow_activity(run, stream_after=position))


@pytest.mark.parametrize("after", [-1, 2**63, "1", 1.5, True])
async def test_an_impossible_position_in_the_log_is_refused(after: Any) -> None:
    run = await activity.acreate("answer")

    with pytest.raises(InvalidOption, match="after="):
        await anext(follow_activity(run, after=after))


async def test_text_that_cannot_be_read_silences_nobody_else() -> None:
    broken, healthy = [await activity.acreate("answer") for _ in range(2)]
    await sync_to_async(spoil_stream)(broken)

    async with (
        aclosing(follow_activity(broken)) as of_broken,
        aclosing(follow_activity(healthy)) as of_healthy,
        asyncio.timeout(PATIENCE),
    ):
        await anext(of_broken)
        await anext(of_healthy)
        activity.stream(healthy, "heard")
        delta = await anext(of_healthy)
        for run in (broken, healthy):
            await activity.acomplete(run)
        ends = [(await read_until(messages, "complete"))[-1] for messages in (of_broken, of_healthy)]

    assert delta["text"] == "heard"
    assert [end["activity"]["agent_id"] for end in ends] == [str(broken), str(healthy)]


async def test_a_row_that_cannot_be_read_silences_nobody_else() -> None:
    broken, healthy = [await activity.acreate("import") for _ in range(2)]
    root = await User.objects.acreate(username="root", is_superuser=True, is_staff=True)

    async with (
        aclosing(follow_activity(broken)) as of_broken,
        aclosing(follow_activity(healthy)) as of_healthy,
        aclosing(follow_feed("all", root)) as feed,
        asyncio.timeout(PATIENCE),
    ):
        for messages in (of_broken, of_healthy, feed):
            await anext(messages)
        await Activity.objects.filter(pk=broken).aupdate(usage=["not", "a", "dictionary"])
        for number in range(3):
            for run in (broken, healthy):
                await activity.aupdate(run, f"line {number}")
        await activity.acomplete(healthy)
        seen = await read_until(of_healthy, "complete")
        await read_until(feed, "complete")
        async with aclosing(follow_feed("all", root)) as another:
            snapshot = await anext(another)
        await Activity.objects.filter(pk=broken).aupdate(usage={})
        await activity.acomplete(broken)
        caught_up = await read_until(of_broken, "complete")

    assert lines(seen) == ["line 0", "line 1", "line 2", "Task completed successfully."]
    assert [item["agent_id"] for item in snapshot["activities"]] == [str(healthy)]
    assert lines(caught_up) == lines(seen)


async def test_a_policy_that_fails_for_one_user_silences_nobody_else(settings: Any) -> None:
    settings.AGENTEXEC = {"POLICY": POLICY}
    one, other = [await User.objects.acreate(username=name, is_superuser=True, is_staff=True) for name in ("a", "b")]

    async with (
        aclosing(follow_feed("all", one)) as of_one,
        aclosing(follow_feed("all", other)) as of_other,
        asyncio.timeout(PATIENCE),
    ):
        for messages in (of_one, of_other):
            await anext(messages)
        one.first_name = "broken"
        # Not announced, so it is found by comparing the feeds, which both followers share.
        run = Activity(agent_type="import", queue="")
        await run.asave()
        found = await anext(of_other)

    assert found["activity"]["agent_id"] == str(run.agent_id)


async def test_a_follower_that_is_far_behind_does_not_delay_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.live.reading.MAX_LINES", 5)
    monkeypatch.setattr("django_agentexec.live.reading.MIN_LINES", 1)
    monkeypatch.setattr("django_agentexec.conf.conf.__class__.LIVE_INTERVAL", 0.05)
    behind, current = [await activity.acreate("import", "line 0") for _ in range(2)]
    for number in range(1, 101):
        await activity.aupdate(behind, f"line {number}")

    async with (
        aclosing(follow_activity(current)) as of_current,
        aclosing(follow_activity(behind)) as of_behind,
        asyncio.timeout(PATIENCE),
    ):
        await anext(of_current)
        seen = [await anext(of_behind)]
        await activity.aupdate(current, "news")
        news = await anext(of_current)
        waiting = 101 - len(lines(seen))
        while len(lines(seen)) < 101:
            seen.append(await anext(of_behind))

    assert lines([news]) == ["news"]
    assert waiting > 50
    assert lines(seen) == [f"line {number}" for number in range(101)]


def spoil_stream(agent_id: UUID) -> None:
    """Put something else where the activity's text is kept, so that each read of it fails."""
    queue = get_queue()
    assert isinstance(queue, RedisQueue)
    queue.client.set(stream_key_of(queue, agent_id), "not a stream")
