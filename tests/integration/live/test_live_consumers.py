"""The consumers, driven as an ASGI server drives them: what is sent after a close, and how many one user may have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User
from django.db import OperationalError
from django.test import override_settings

from django_agentexec.live.connections import (
    MAX_READS_PER_USER,
    ConnectionSlot,
    UserLimit,
    read_turn,
)
from django_agentexec.live.websocket import auth, consumers
from django_agentexec.live.websocket.consumers import FeedConsumer
from tests.support.pool_process import PATIENCE
from tests.support.rest_api import staff
from tests.support.waits import live_clients

pytestmark = pytest.mark.django_db(transaction=True)

HOST = b"127.0.0.1"


class Consumer(FeedConsumer):  # type: ignore[misc]  # Channels has no types
    made: ClassVar[list[Consumer]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made.append(self)

    @property
    def writer(self) -> asyncio.Task[None]:
        """The task that sends messages."""
        writer, _ = self._tasks
        return writer


class Socket:
    """A connection as uvicorn has it: a message after the close is an error."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.is_broken = False

    async def send(self, message: dict[str, Any]) -> None:
        if self.close_code is not None:
            self.late.append(message)
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r}, after sending 'websocket.close'.")
        if self.is_broken:
            raise OSError("The client is gone.")
        self.sent.append(message)
        self.changed.set()

    @property
    def close_code(self) -> int | None:
        return next((message["code"] for message in self.sent if message["type"] == "websocket.close"), None)

    @property
    def types(self) -> list[str]:
        return [json.loads(message["text"])["type"] for message in self.sent if message["type"] == "websocket.send"]

    async def until(self, kind: str) -> None:
        """Wait until a message of this ASGI type was sent."""
        while not any(message["type"] == kind for message in self.sent):
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def connected(user: User | None, **scope: Any) -> AsyncIterator[Socket]:
    """Run the feed's consumer for this user inside the block."""
    socket = Socket()
    await socket.incoming.put({"type": "websocket.connect"})
    headers = [(b"origin", b"http://" + HOST), (b"host", HOST)]
    full = {"type": "websocket", "path": "/", "headers": headers, "user": user, "client": ["10.0.0.1", 1], **scope}
    app = asyncio.create_task(Consumer.as_asgi()(full, socket.incoming.get, socket.send))
    try:
        async with asyncio.timeout(PATIENCE):
            yield socket
    finally:
        await socket.incoming.put({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(app, PATIENCE)
        assert socket.late == []


@pytest.fixture(autouse=True)
def hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = [HOST.decode()]
    Consumer.made.clear()


async def viewer(name: str = "viewer") -> User:
    return await sync_to_async(staff)(name, "view_activity")


async def test_nothing_is_sent_after_the_close(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(await viewer()) as socket:
        await socket.until("websocket.send")
        await socket.incoming.put({"type": "websocket.receive", "text": "not JSON"})
        await socket.until("websocket.close")
        for number in range(3):
            Consumer.made[0].follower.send_buffer.put({"type": "ping", "number": number})
            await asyncio.sleep(0)  # let the writer see it

    assert socket.close_code == 4400
    assert socket.types == ["snapshot"]
    assert caplog.records == []


async def test_nothing_is_sent_to_a_client_that_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(await viewer()) as socket:
        await socket.until("websocket.send")
        socket.is_broken = True
        Consumer.made[0].follower.send_buffer.put({"type": "ping"})
        await Consumer.made[0].writer

    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_close_while_a_message_is_being_encoded_sends_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check whether the socket is open comes last: nothing is awaited between it and the send."""
    async with connected(await viewer()) as socket:
        await socket.until("websocket.send")
        consumer = Consumer.made[0]
        closing = asyncio.create_task(consumer.end(4400, "over"))
        consumer.follower.send_buffer.put({"type": "ping"})
        await closing

    assert socket.types == ["snapshot"]


@override_settings(AGENTEXEC={"LIVE_MAX_CONNECTIONS": 2})
async def test_a_user_has_a_limited_number_of_sockets() -> None:
    one, other = await viewer("one"), await viewer("other")
    async with connected(one) as first:
        async with connected(one) as second, connected(one) as third, connected(other) as of_other:
            await third.until("websocket.close")
            for socket in (first, second, of_other):
                await socket.until("websocket.send")
        async with connected(one) as again:
            await again.until("websocket.send")

    assert third.close_code == consumers.TOO_MANY == 4429
    assert third.types == []
    assert live_clients() == 0


@override_settings(AGENTEXEC={"LIVE_MAX_CONNECTIONS": 1})
async def test_who_is_not_signed_in_is_counted_by_address() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def signed_in(*_: object) -> User:
        entered.set()
        await leave.wait()
        raise auth.Refused(4401, "not_signed_in", "Sign in.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumers, "in_thread", signed_in)
        async with connected(None), connected(None) as second, connected(None, client=["10.0.0.2", 1]) as elsewhere:
            await entered.wait()
            await second.until("websocket.close")
            leave.set()
            await elsewhere.until("websocket.close")

    assert (second.close_code, elsewhere.close_code) == (4429, 4401)


def test_a_scope_without_a_user_is_refused_and_the_missing_middleware_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    auth.report_missing_middleware.cache_clear()

    for _ in range(2):
        with pytest.raises(auth.Refused) as refusal:
            auth.authenticate({"type": "websocket"})
        assert refusal.value.close_code == 4401

    assert [record.getMessage() for record in caplog.records] == [
        "A websocket was closed with 4401 (not signed in): no middleware has set scope['user']. Wrap the routes in "
        "asgi.py: AuthMiddlewareStack(URLRouter(websocket_urlpatterns)), from channels.auth."
    ]


async def test_a_sign_in_that_has_a_row_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "RECHECK_INTERVAL", 0.05)
    token = await Group.objects.acreate(name="as good a row as REST framework's token")
    async with connected(await viewer(), auth=token) as socket:
        await socket.until("websocket.send")
        await Group.objects.all().adelete()
        await socket.until("websocket.close")

    assert socket.close_code == 4401


async def test_a_sign_in_with_a_function_ends_when_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "RECHECK_INTERVAL", 0.05)
    answers = iter([True, True, False])
    async with connected(await viewer(), auth=lambda: next(answers)) as socket:
        await socket.until("websocket.close")

    assert (socket.types, socket.close_code) == (["snapshot"], 4401)


@pytest.mark.parametrize(
    ("error", "looks"), [(OperationalError("gone"), consumers.MAX_FAILED_CHECKS), (ZeroDivisionError("a fault"), 1)]
)
async def test_permissions_that_cannot_be_checked_end_the_socket(
    error: Exception, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "RECHECK_INTERVAL", 0.05)
    asked: list[None] = []

    def fail(scope: Any) -> User:
        asked.append(None)
        raise error

    async with connected(await viewer()) as socket:
        await socket.until("websocket.send")
        monkeypatch.setattr(auth, "authenticate", fail)
        await socket.until("websocket.close")

    assert socket.close_code == 1011
    assert len(asked) == looks


async def test_one_users_reads_do_not_delay_anothers() -> None:
    begun: list[str] = []
    leave = asyncio.Event()

    async def read(holder: str) -> None:
        async with read_turn(holder):
            begun.append(holder)
            if holder == "many":
                await leave.wait()

    many = [asyncio.create_task(read("many")) for _ in range(50)]
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await read("one")
        assert begun == ["many"] * MAX_READS_PER_USER + ["one"]
        leave.set()
        await asyncio.gather(*many)

    assert begun.count("many") == 50


def test_a_slot_is_released_once() -> None:
    limit = UserLimit()
    slot, never_taken = ConnectionSlot(limit, "a"), ConnectionSlot(limit, "a")

    assert slot.acquire(1)
    assert not never_taken.acquire(1)
    never_taken.release()
    assert limit.is_reached("a", 1)
    slot.release()
    slot.release()
    assert not limit.is_reached("a", 1)
    assert not slot.acquire(1)
