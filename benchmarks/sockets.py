"""Many websocket clients in this process and one server process, for the benchmark `websocket_fanout`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.pools import until
from django_agentexec import activity

MAX_HANDSHAKES = 25  # concurrent handshakes


def fanout(clients: int, changes: int) -> tuple[list[float], int]:
    """Return the delays of all changes at all clients, in milliseconds, and the total number of messages."""
    agent_id = activity.create("fanout")
    with _server(clients) as port:
        return asyncio.run(_measure(port, agent_id, session_cookie(), clients, changes))


async def _measure(port: int, agent_id: UUID, cookie: str, clients: int, changes: int) -> tuple[list[float], int]:
    url = f"ws://127.0.0.1:{port}/ws/agents/activities/{agent_id}/"
    called: dict[str, float] = {}
    waits: list[float] = []
    counts: list[int] = []
    limit = asyncio.Semaphore(MAX_HANDSHAKES)

    async def listen(connection: ClientConnection, is_ready: asyncio.Event) -> None:
        seen = 0
        async for text in connection:
            now = time.monotonic()
            message = json.loads(text)
            seen += 1
            is_ready.set()
            lines = message["logs"] if message["type"] == "activity" else []
            waits.extend((now - called[line["message"]]) * 1e3 for line in lines if line["message"] in called)
            if message["type"] == "activity" and message["activity"]["status"] == "complete":
                break
        counts.append(seen)

    async with AsyncExitStack() as stack:

        async def open_one() -> asyncio.Task[None]:
            async with limit:
                connection = await stack.enter_async_context(
                    connect(url, origin=f"http://127.0.0.1:{port}", additional_headers={"Cookie": cookie})  # type: ignore[arg-type]  # a NewType of str
                )
                is_ready = asyncio.Event()
                task = asyncio.create_task(listen(connection, is_ready))
                await is_ready.wait()
                return task

        listeners = await asyncio.gather(*[open_one() for _ in range(clients)])
        for number in range(changes):
            called[f"change {number}"] = time.monotonic()
            await activity.aupdate(agent_id, f"change {number}", 100 * number / changes)
            await asyncio.sleep(1.0)
        await activity.acomplete(agent_id)
        await asyncio.gather(*listeners)
    await sync_to_async(_check)(len(waits), clients * changes)
    return waits, sum(counts)


def _check(arrived: int, expected: int) -> None:
    if arrived != expected:
        raise RuntimeError(f"{arrived} changes arrived, {expected} were sent.")


@contextmanager
def _server(connections: int) -> Iterator[int]:
    """Run uvicorn with one process that accepts so many connections of one user, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "benchmarks.asgi:application", "--port", str(port), "--log-level", "warning"],
        env={**os.environ, "BENCHMARK_SETTINGS": json.dumps({"LIVE_MAX_CONNECTIONS": connections})},
    )
    try:
        until(lambda: _answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def session_cookie() -> str:
    user, _ = User.objects.get_or_create(username="bench", defaults={"is_superuser": True, "is_staff": True})
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
