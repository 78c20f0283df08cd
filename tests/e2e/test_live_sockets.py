"""The websockets over a real server: what a page sees of activities, and how it steers them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from django_agentexec import activity
from tests.live import FEED, Server, client, cookie_of, path_of, serve

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def root() -> str:
    """The cookie of someone who may do everything."""
    return cookie_of(User.objects.create_superuser("root", password="x"))


@pytest.fixture(autouse=True)
def allowed_hosts(settings: object) -> None:
    settings.ALLOWED_HOSTS = ["127.0.0.1"]  # type: ignore[attr-defined]


async def test_an_activity_is_followed_to_its_end(server: Server, root: str) -> None:
    agent_id = await activity.acreate("import")

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(20):
        snapshot = await page.read()
        await activity.aupdate(agent_id, "Half", 50)
        await page.read_until_status("running")
        await activity.acomplete(agent_id)
        end = await page.read_until_status("complete")

    assert snapshot["type"] == "snapshot"
    assert snapshot["activity"]["agent_id"] == str(agent_id)
    assert end["activity"]["percentage"] == 100
    assert [message["seq"] for message in page.seen] == list(range(1, len(page.seen) + 1))
    assert [line["message"] for line in page.lines] == [
        "Waiting to start.",
        "Half",
        "Task completed successfully.",
    ]


async def test_the_feed_tells_of_new_activities(server: Server, root: str) -> None:
    known = await activity.acreate("import")

    async with client(server, FEED, cookie=root) as page, asyncio.timeout(20):
        snapshot = await page.read()
        new = await activity.acreate("export")
        message = await page.read_until("activity")

    assert [item["agent_id"] for item in snapshot["activities"]] == [str(known)]
    assert message["activity"]["agent_id"] == str(new)
    assert message["logs"] == []


async def test_1000_updates_in_a_second(server: Server, root: str) -> None:
    agent_id = await activity.acreate("import")

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(60):
        await page.read()

        def work() -> None:
            for number in range(1000):
                activity.update(agent_id, f"line {number}", number / 10)
            activity.complete(agent_id)

        begun = asyncio.get_running_loop().time()
        await sync_to_async(work)()
        print("took", asyncio.get_running_loop().time() - begun)
        await page.read_until_status("complete")

    print("messages", len(page.seen))
    assert len(page.lines) == 1002
