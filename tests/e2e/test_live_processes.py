"""Live updates between processes: workers and other writers here, a server and its pages there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async

from django_agentexec import activity
from django_agentexec.live import hub
from django_agentexec.models import Activity, ActivityLog
from tests.e2e.journal import Journal
from tests.support.asgi_server import FEED, Server, client, daphne, in_database, path_of
from tests.support.pool_process import PATIENCE, environment, pool, until
from tests.support.servers import Valkey, valkey_server
from tests.testapp.agents import Text, Work, report, sync_work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]

WRITER = """
import django, sys
django.setup()
from django_agentexec import activity
from django_agentexec.live import hub
for number in range(int(sys.argv[2])):
    activity.update(sys.argv[1], f"{sys.argv[3]} {number}")
"""


@pytest.fixture
def own_layer(settings: Any) -> Iterator[Valkey]:
    """A separate server for the channel layer."""
    with valkey_server() as running:
        layer = {**settings.CHANNEL_LAYERS["default"], "CONFIG": {"hosts": [running.url]}}
        settings.CHANNEL_LAYERS = {"default": layer}
        yield running


def log_of(agent_id: UUID) -> list[int]:
    """Return the ids of the activity's whole log."""
    return list(ActivityLog.objects.filter(activity_id=agent_id).values_list("id", flat=True))


async def test_a_page_sees_a_run_in_a_worker_from_queue_to_end(server: Server, root: str) -> None:
    handle = await report.aenqueue(Text(text="Acme is fine"))

    async with client(server, path_of(handle.agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        with pool("--workers", "1", "--burst"):
            await page.read_until_status("complete")

    states = [message["activity"]["status"] for message in page.seen if "activity" in message]
    assert states[0] == "queued"
    assert [line["message"] for line in page.lines] == [
        "Waiting to start.",
        "Task started.",
        "Counting",
        "Task completed successfully.",
    ]


async def test_a_cancel_over_the_socket_stops_the_handler(server: Server, root: str, journal: Journal) -> None:
    handle = await sync_work.aenqueue(Work(journal=str(journal.path), name="long", seconds=60.0))

    with pool("--workers", "1"):
        async with client(server, path_of(handle.agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
            await page.read_until_status("running")
            await page.send(cancel=str(handle.agent_id))
            await page.read_until_status("canceled")
        await asyncio.to_thread(until, lambda: journal.names("canceled"), "the handler stopped")

    assert journal.names("end") == []


async def test_lines_of_two_processes_come_in_order(server: Server, root: str) -> None:
    agent_id = await activity.acreate("import")

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        writers = [await sync_to_async(start_writer)(agent_id, name, 200) for name in ("one", "two")]
        while len(page.lines) < 401:
            await page.read()
        assert [await asyncio.to_thread(writer.wait, PATIENCE) for writer in writers] == [0, 0]

    assert [line["id"] for line in page.lines] == await in_database(log_of, agent_id)
    assert len(page.seen) < 400


def start_writer(agent_id: UUID, name: str, count: int) -> subprocess.Popen[bytes]:
    """Start a process that writes `count` lines."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(agent_id), str(count), name], env=environment())


async def test_daphne_serves_it_too(root: str) -> None:
    agent_id = await activity.acreate("import")

    with daphne() as served:
        async with client(served, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
            await page.read()
            await activity.acomplete(agent_id)
            await page.read_until_status("complete")
        async with client(served, path_of(agent_id), origin="https://evil.example", cookie=root) as foreign:
            code = await foreign.closed()

    assert [line["message"] for line in page.lines] == ["Waiting to start.", "Task completed successfully."]
    assert (code, foreign.seen) == (4403, [])


async def test_what_exceeds_daphnes_limit_arrives_all_the_same(root: str) -> None:
    """Daphne drops messages above 1 MiB: sixty long messages, a large result, and a long log of long lines."""
    runs = [await activity.acreate("import") for _ in range(60)]
    for run in runs:
        await Activity.objects.filter(pk=run).aupdate(latest_log_message="x" * 20_000)
    done = await activity.acreate("export")
    await ActivityLog.objects.abulk_create(
        ActivityLog(activity_id=done, status="running", message=f"{number}" + "\N{SNOWMAN}" * 20_000)
        for number in range(800)
    )
    await activity.acomplete(done, result="y" * 1_100_000)

    with daphne() as served:
        async with client(served, FEED, cookie=root) as feed, asyncio.timeout(PATIENCE):
            shown: set[str] = set()
            while len(shown) < len(runs) + 1:
                message = await feed.read()
                shown |= {item["agent_id"] for item in message.get("activities", [])}
        async with client(served, path_of(done), cookie=root) as page, asyncio.timeout(PATIENCE):
            first = await page.read()
            end = await page.read_until_status("complete")

    assert first["activity"]["result"] is None
    assert len(page.lines) == 802
    assert not end.get("has_more")


async def test_pages_catch_up_after_the_layers_server_was_away(own_layer: Valkey, server: Server, root: str) -> None:
    agent_id = await activity.acreate("import")

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await activity.aupdate(agent_id, "before")
        while len(page.lines) < 2:
            await page.read()
        own_layer.kill()
        await activity.aupdate(agent_id, "while it is down")
        while len(page.lines) < 3:
            await page.read()
        await asyncio.to_thread(own_layer.start)
        await activity.acomplete(agent_id, "after")
        await page.read_until_status("complete")

    assert [line["message"] for line in page.lines] == ["Waiting to start.", "before", "while it is down", "after"]


async def test_hints_come_again_after_the_layers_server_was_away(
    own_layer: Valkey, server: Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CHECK_INTERVAL", "POLL_INTERVAL", "PUBLISHER_DELAY"):  # so that only a hint can cause a read
        monkeypatch.setattr(hub, name, 600.0)
    agent_id = await activity.acreate("import")

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        own_layer.kill()
        await asyncio.to_thread(own_layer.start)
        reading = asyncio.create_task(page.read_until("activity"))
        while not reading.done():
            await activity.aupdate(agent_id, "again")
            await asyncio.wait([reading], timeout=0.2)


async def test_a_page_opened_while_the_layers_server_is_away_is_served(
    own_layer: Valkey, server: Server, root: str
) -> None:
    agent_id = await activity.acreate("import")
    own_layer.kill()

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await activity.acomplete(agent_id)
        await page.read_until_status("complete")

    assert [line["message"] for line in page.lines] == ["Waiting to start.", "Task completed successfully."]
