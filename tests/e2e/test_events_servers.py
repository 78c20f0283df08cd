"""Server-sent events from real ASGI servers, read as a client without websockets reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from uuid import UUID

import pytest

from django_agentexec import activity
from tests.support.asgi_server import Address, Server, daphne
from tests.support.pool_process import PATIENCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]


@pytest.fixture(params=["uvicorn", "daphne"])
def address(request: pytest.FixtureRequest) -> Iterator[Address]:
    """Each of the servers that the documentation names."""
    if request.param == "daphne":
        with daphne() as served:
            yield served
    else:
        server: Server = request.getfixturevalue("server")
        yield server


class Stream:
    """What a browser's EventSource knows: the events, and the last id."""

    def __init__(self, address: Address, agent_id: UUID, cookie: str) -> None:
        self._address, self._path = address, f"/agents/activities/{agent_id}/events/"
        self._cookie = cookie
        self.last_id = ""
        self.lines: list[str] = []

    @contextmanager
    def open(self) -> Iterator[HTTPResponse]:
        """Connect, resuming after what is known; leaving the block cuts the connection."""
        connection = HTTPConnection("127.0.0.1", self._address.port, timeout=PATIENCE)
        resume = {"Last-Event-ID": self.last_id} if self.last_id else {}
        try:
            connection.request("GET", self._path, headers={"Cookie": self._cookie, **resume})
            yield connection.getresponse()
        finally:
            connection.close()

    def read(self, response: HTTPResponse) -> str:
        """Wait for the next event, and return its type; "" at the end of the stream."""
        fields: dict[str, str] = {}
        while line := response.readline().decode():
            if line == "\n" and "data" in fields:
                self._take(fields["id"], json.loads(fields["data"]))
                return fields["event"]
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value
        return ""

    def _take(self, event_id: str, data: dict[str, Any]) -> None:
        self.last_id = event_id
        logs = data["activity"]["logs"] if data["type"] == "snapshot" else data.get("logs", [])
        self.lines += [line["message"] for line in logs]


def test_each_event_arrives_as_it_happens_and_a_cut_stream_is_resumed(address: Address, root: str) -> None:
    agent_id = activity.create("import", "Waiting")
    stream = Stream(address, agent_id, root)

    with stream.open() as response:
        assert (response.status, response.getheader("Content-Type")) == (200, "text/event-stream")
        assert stream.read(response) == "snapshot"
        activity.update(agent_id, "Reading", 30)
        while "Reading" not in stream.lines:
            assert stream.read(response)
    activity.update(agent_id, "While it was cut")
    with stream.open() as response:
        while "While it was cut" not in stream.lines:
            assert stream.read(response)
        activity.complete(agent_id, "Done")
        while stream.read(response):
            pass
    with stream.open() as response:
        assert response.status == 204

    assert stream.lines == ["Waiting", "Reading", "While it was cut", "Done"]


def test_a_stranger_gets_no_stream(address: Address) -> None:
    with Stream(address, activity.create("import"), "sessionid=nobody").open() as response:
        assert response.status in (401, 403)
