"""The websockets over a real server and a real layer: what a page sees of activities, and how it steers them."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from websockets.exceptions import ConnectionClosed

from django_agentexec import activity
from django_agentexec.live.websocket import consumers
from django_agentexec.models import ActivityLog
from tests.support.asgi_server import FEED, Client, Server, client, path_of
from tests.support.pool_process import PATIENCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]

UPDATES = 1_000


async def log_ids(agent_id: UUID) -> list[int]:
    """Return the ids of the activity's whole log, as the database has it."""
    return [line.pk async for line in ActivityLog.objects.filter(activity_id=agent_id)]


def ids(page: Client) -> list[int]:
    """Return the ids of the log lines that this page got, in the order in which they came."""
    return [line["id"] for line in page.lines]


async def test_an_activity_is_followed_to_its_end(server: Server, root: str) -> None:
    agent_id = await activity.acreate("import")

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        snapshot = await page.read()
        await activity.aupdate(agent_id, "Half", 50)
        await page.read_until_status("running")
        await activity.acomplete(agent_id)
        end = await page.read_until_status("complete")

    assert snapshot["type"] == "snapshot"
    assert snapshot["activity"]["agent_id"] == str(agent_id)
    assert end["activity"]["percentage"] == 100
    assert [message["seq"] for message in page.seen] == list(range(1, len(page.seen) + 1))
    assert [line["message"] for line in page.lines] == ["Waiting to start.", "Half", "Task completed successfully."]


async def test_the_feed_tells_of_new_activities(server: Server, root: str) -> None:
    known = await activity.acreate("import")

    async with client(server, FEED, cookie=root) as page, asyncio.timeout(PATIENCE):
        snapshot = await page.read()
        new = await activity.acreate("export")
        message = await page.read_until("activity")

    assert [item["agent_id"] for item in snapshot["activities"]] == [str(known)]
    assert message["activity"]["agent_id"] == str(new)
    assert message["logs"] == []


async def test_a_thousand_updates_in_a_second_are_few_messages_and_the_whole_log(server: Server, root: str) -> None:
    agent_id = await activity.acreate("import")
    loop = asyncio.get_running_loop()

    def work() -> None:
        for number in range(UPDATES):
            activity.update(agent_id, f"line {number}", number / 10)
        activity.complete(agent_id)

    async with (
        client(server, path_of(agent_id), cookie=root) as first,
        client(server, path_of(agent_id), cookie=root) as second,
        client(server, FEED, cookie=root) as feed,
        asyncio.timeout(PATIENCE),
    ):
        for page in (first, second, feed):
            await page.read()
        begun = loop.time()
        await sync_to_async(work)()
        ends = [await page.read_until_status("complete") for page in (first, second, feed)]
        took = loop.time() - begun

    expected = await log_ids(agent_id)
    assert len(expected) == UPDATES + 2
    assert ids(first) == ids(second) == expected
    assert [end["activity"]["percentage"] for end in ends] == [100, 100, 100]
    # One per interval of 0.1 s, the first at once, and the snapshot.
    assert all(len(page.seen) <= took / 0.1 + 3 for page in (first, second, feed))


async def test_a_cut_socket_is_resumed_without_gap_or_duplicate_while_writing_goes_on(
    server: Server, root: str
) -> None:
    agent_id = await activity.acreate("import")
    is_enough = asyncio.Event()

    async def write() -> None:
        for number in itertools.count():
            await activity.aupdate(agent_id, f"line {number}")
            if is_enough.is_set():
                break
        await activity.acomplete(agent_id)

    async def read_and_cut(after: int) -> list[int]:
        async with client(server, path_of(agent_id, f"?after={after}"), cookie=root) as page:
            try:
                for _ in range(3):
                    await page.read()
                server.cut()
                while True:
                    await page.read()
            except ConnectionClosed:
                return ids(page)

    async with asyncio.timeout(PATIENCE):
        writer = asyncio.create_task(write())
        got: list[int] = []
        for _ in range(5):
            got += await read_and_cut(got[-1] if got else 0)
        is_enough.set()
        await writer
        async with client(server, path_of(agent_id, f"?after={got[-1]}"), cookie=root) as page:
            await page.read_until_status("complete")
            got += ids(page)

    assert got == await log_ids(agent_id)


async def test_one_socket_follows_several_activities(server: Server, root: str) -> None:
    one, two = [await activity.acreate(name) for name in ("one", "two")]
    await activity.aupdate(two, "known")
    known = (await log_ids(two))[-1]
    await activity.aupdate(two, "missed")

    async with client(server, path_of(one), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await page.send(subscribe=[str(two)], after={str(two): known}, request=7)
        snapshot, done = await page.read(), await page.read_until("done")
        await activity.acomplete(two)
        complete = await page.read_until_status("complete")
        await page.send(unsubscribe=[str(two)], request="out")
        await page.read_until("done")
        await activity.acomplete(one)
        last = await page.read_until_status("complete")

    assert [line["message"] for line in snapshot["activity"]["logs"]] == ["missed"]
    assert done["request"] == 7
    assert complete["activity"]["agent_id"] == str(two)
    assert last["activity"]["agent_id"] == str(one)


async def test_the_feed_brings_the_log_of_what_is_subscribed_only(server: Server, root: str) -> None:
    one, two = [await activity.acreate(name) for name in ("one", "two")]

    async with client(server, FEED, cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await page.send(subscribe=[str(one)])
        await page.read_until("done")
        for agent_id in (one, two):
            await activity.acomplete(agent_id, "end")
        while len({m["activity"]["agent_id"] for m in page.seen if m["type"] == "activity"}) < 2 or "end" not in [
            line["message"] for line in page.lines
        ]:
            await page.read()

    lines_by_id = {m["activity"]["agent_id"]: m["logs"] for m in page.seen if m["type"] == "activity" and m["logs"]}
    assert list(lines_by_id) == [str(one)]


async def test_text_is_streamed_and_replayed_after_a_position(server: Server, root: str) -> None:
    agent_id = await activity.acreate("answer")
    activity.stream(agent_id, "The lease ")
    await activity.aflush_stream()

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        first = await page.read_until("delta")
        activity.stream(agent_id, "ends in March.")
        second = await page.read_until("delta")
    query = f"?stream_after={first['stream_id']}"
    async with client(server, path_of(agent_id, query), cookie=root) as page, asyncio.timeout(PATIENCE):
        replayed = await page.read_until("delta")

    assert [first["text"], second["text"]] == ["The lease ", "ends in March."]
    assert first["agent_id"] == str(agent_id)
    assert (replayed["text"], replayed["stream_id"]) == (second["text"], second["stream_id"])


async def test_a_cancel_and_a_retry_are_answered_and_told(server: Server, root: str) -> None:
    agent_id = await activity.acreate("import")

    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await page.send(cancel=str(agent_id), request="stop")
        await page.read_until_status("canceled")
        await page.send(cancel=str(agent_id), request="again")
        conflict = await page.read_until("error")
        await page.send(retry=str(agent_id), request="retry")
        refused = await page.read_until("error")

    assert next(m for m in page.seen if m["type"] == "done")["request"] == "stop"
    assert (conflict["code"], conflict["request"]) == ("conflict", "again")
    assert "it cannot be canceled" in conflict["message"]
    assert "never queued" in refused["message"]


@pytest.mark.slow
async def test_a_slow_client_is_closed_with_the_code_to_resume(
    server: Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "SEND_TIMEOUT", 0.5)
    agent_id = await activity.acreate("import")

    async def write_much() -> None:
        """Write for some seconds more than the buffers between server and client hold."""
        for _ in range(100):
            lines = [ActivityLog(activity_id=agent_id, status="running", message="x" * 2_000) for _ in range(50)]
            await ActivityLog.objects.abulk_create(lines)
            await activity.aupdate(agent_id, "more")
            await asyncio.sleep(0.03)

    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # else the kernel lets it grow to many megabytes
    small.connect(("127.0.0.1", server.port))
    options: dict[str, Any] = {"sock": small, "max_size": None, "max_queue": 1, "compression": None}
    async with client(server, path_of(agent_id), cookie=root, **options) as page, asyncio.timeout(PATIENCE):
        await write_much()  # and read nothing
        code = await page.closed()
    async with client(
        server, path_of(agent_id, f"?after={page.lines[-1]['id']}"), cookie=root, max_size=None
    ) as resumed:
        got = ids(page)
        while got != await log_ids(agent_id):
            await resumed.read()
            got = ids(page) + ids(resumed)

    assert code == 4408
    assert 0 < len(ids(page)) < 100 * 51 + 1


async def test_an_activity_that_is_deleted_ends_its_socket(server: Server, root: str) -> None:
    from django_agentexec.models import Activity

    agent_id = await activity.acreate("import")
    async with client(server, path_of(agent_id), cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await Activity.objects.filter(pk=agent_id).adelete()
        assert await page.closed() == 4404


async def test_a_quiet_socket_gets_pings_and_may_answer(
    server: Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_agentexec.live.subscriptions.PING_INTERVAL", 0.1)
    async with client(server, FEED, cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read_until("ping")
        await page.send(type="pong")
        again = await page.read_until("ping")

    assert again["seq"] > 2
    assert {message["type"] for message in page.seen} == {"snapshot", "ping"}


async def test_what_cannot_be_done_is_answered(server: Server, root: str) -> None:
    unknown = str(uuid4())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"subscribe": [unknown]}, "not_found"),
        ({"cancel": unknown}, "not_found"),
        ({"cancel": "x"}, "invalid"),
        ({"subscribe": "x"}, "invalid"),
        ({"subscribe": []}, "invalid"),
        ({"subscribe": [unknown] * 101}, "invalid"),
        ({"subscribe": [unknown], "after": {unknown: -1}}, "invalid"),
        ({"subscribe": [unknown], "after": {unknown: 2**70}}, "invalid"),
        ({"cancel": unknown, "retry": unknown}, "invalid"),
        ({"delete": unknown}, "invalid"),
    ]
    async with client(server, FEED, cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.read()
        for number, (message, _) in enumerate(cases):
            await page.send(**message, request=number)
        errors = [await page.read_until("error") for _ in cases]

    assert [(error["request"], error["code"]) for error in errors] == list(enumerate(code for _, code in cases))


@pytest.mark.parametrize("message", ["{", "[]", "3", b"{}", "[" * 20_000, '"' + "x" * 40_000 + '"'])
async def test_what_is_no_message_closes_the_socket(server: Server, root: str, message: str | bytes) -> None:
    async with client(server, FEED, cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.connection.send(message)
        assert await page.closed() == 4400


async def test_a_flood_closes_the_socket(server: Server, root: str) -> None:
    async with client(server, FEED, cookie=root) as page, asyncio.timeout(PATIENCE):
        for _ in range(100):
            await page.send(type="pong")
        assert await page.closed() == 4400


async def test_a_socket_follows_a_limited_number(server: Server, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "MAX_IDS", 2)
    runs = [str(await activity.acreate("import")) for _ in range(3)]
    async with client(server, FEED, cookie=root) as page, asyncio.timeout(PATIENCE):
        await page.send(subscribe=runs[:2])
        await page.read_until("done")
        await page.send(subscribe=runs[2:])
        assert (await page.read_until("error"))["code"] == "too_many"


@pytest.mark.parametrize(
    "query",
    [
        *(
            f"?after={text}"
            for text in ("x", "-1", "99999999999999999999", "9223372036854775808", "", "1_0", "%D9%A1", "+1")
        ),
        *(
            f"?stream_after={text}"
            for text in ("$", "", "1", "1-18446744073709551616", "1-%D9%A1", "%D9%A1-1", "1-1%0A")
        ),
        "?after=1&after=2",
    ],
)
async def test_an_impossible_position_is_refused(server: Server, root: str, query: str) -> None:
    agent_id = await activity.acreate("import")
    async with client(server, path_of(agent_id, query), cookie=root) as page, asyncio.timeout(PATIENCE):
        assert await page.closed() == 4400
