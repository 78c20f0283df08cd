"""A real ASGI server in this process, and real websocket clients of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import uvicorn
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.pool_process import environment, until

P = ParamSpec("P")
T = TypeVar("T")
Message = dict[str, Any]
FEED = "/ws/agents/activities/"
PATIENCE = 60.0  # seconds


@dataclass
class Address:
    """Where a server listens."""

    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Server(Address):
    """uvicorn in a thread; `cut` closes its sockets as a restart does."""

    def __init__(self) -> None:
        from tests.asgi import application

        self._socket = socket.create_server(("127.0.0.1", 0))
        super().__init__(self._socket.getsockname()[1])
        config = uvicorn.Config(
            application, log_level="warning", lifespan="off", timeout_graceful_shutdown=1, ws="websockets-sansio"
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [self._socket]})

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + PATIENCE
        while not self._uvicorn.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def cut(self) -> None:
        """Cut every connection, without a closing handshake."""
        for connection in list(self._uvicorn.server_state.connections):
            connection.loop.call_soon_threadsafe(connection.transport.abort)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE)
        self._socket.close()


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server inside the block."""
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def daphne() -> Iterator[Address]:
    """Run Daphne in a separate process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "daphne", "-v0", "-p", str(port), "tests.asgi:application"]
    process = subprocess.Popen(command, env=environment())
    try:
        until(lambda: _answers(port), "Daphne listens")
        yield Address(port)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cookie_of(user: User) -> str:
    """Sign `user` in, and return the header that says so."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a sync function that uses the ORM."""
    return await sync_to_async(function)(*args, **kwargs)


class Client:
    """A websocket as a page has it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[Message] = []

    async def read(self) -> Message:
        """Return the next message."""
        message: Message = json.loads(await self.connection.recv())
        self.seen.append(message)
        return message

    async def read_until(self, kind: str) -> Message:
        """Return the next message of this type."""
        while (message := await self.read())["type"] != kind:
            pass
        return message

    async def read_until_status(self, status: str) -> Message:
        """Return the next message with this status."""
        while (message := await self.read()).get("activity", {}).get("status") != status:
            pass
        return message

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def closed(self) -> int:
        """Wait until the server closes the socket, and return the code."""
        with suppress(ConnectionClosed):
            while True:
                await self.read()
        assert self.connection.close_code is not None
        return self.connection.close_code

    @property
    def lines(self) -> list[Message]:
        """The log as this client has it."""
        return [line for message in self.seen for line in lines_of(message)]


def lines_of(message: Message) -> list[Message]:
    """Return the log lines that a message carries."""
    if message["type"] == "snapshot":
        found: list[Message] = message.get("activity", {}).get("logs", [])
    else:
        found = message.get("logs", [])
    return found


def path_of(agent_id: UUID, query: str = "") -> str:
    """Return the path of one activity's socket."""
    return f"{FEED}{agent_id}/{query}"


@asynccontextmanager
async def client(
    server: Address, path: str = FEED, *, cookie: str = "", origin: str | None = None, **options: Any
) -> AsyncIterator[Client]:
    """Connect with this session, by default from a page of the server."""
    headers = {"Cookie": cookie} if cookie else {}
    async with connect(
        server.url + path,
        origin=server.origin if origin is None else origin or None,  # type: ignore[arg-type]
        additional_headers=headers,
        **options,
    ) as connection:
        yield Client(connection)
