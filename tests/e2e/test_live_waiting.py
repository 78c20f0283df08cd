"""Requests that wait on a real ASGI server: they share a read, and one user's are limited in number."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from django_agentexec import activity
from tests.support.asgi_server import Server
from tests.support.pool_process import PATIENCE, until
from tests.support.waits import live_clients, waiting_requests

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]

WAITS = 60


def get(server: Server, run: UUID, cookie: str) -> tuple[int, Any]:
    """Wait for a change of the activity, and return the answer."""
    url = f"{server.origin}/agents/activities/{run}/?wait=20"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Cookie": cookie}), timeout=PATIENCE
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def test_many_waits_end_together_and_one_too_many_is_refused(server: Server, root: str, settings: Any) -> None:
    settings.AGENTEXEC = {"API_MAX_WAITS": 1, "LIVE_MAX_CONNECTIONS": WAITS}
    run = await activity.acreate("import")
    loop = asyncio.get_running_loop()

    with ThreadPoolExecutor(WAITS + 1) as pool:
        async with asyncio.timeout(PATIENCE):
            waits = [loop.run_in_executor(pool, get, server, run, root) for _ in range(WAITS)]
            await loop.run_in_executor(None, until, lambda: waiting_requests() == WAITS, "all wait")
            refused, _ = await loop.run_in_executor(pool, get, server, run, root)
            await activity.acancel(run)
            answers = await asyncio.gather(*waits)

    assert refused == 429
    assert {(status, detail["status"]) for status, detail in answers} == {(200, "canceled")}
    assert live_clients() == 0
