"""A real pool reports to a service manager when it works, and when it drains."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.pool_process import pool

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def test_a_pool_reports_that_it_works_is_alive_and_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        with pool("--workers", "2"):
            messages = []
            while not any(message.startswith("READY=1") for message in messages):
                messages.append(receiver.recv(4096).decode())
            while receiver.recv(4096) != b"WATCHDOG=1":
                pass

        while not (message := receiver.recv(4096).decode()).startswith("STOPPING=1"):
            pass
    assert "READY=1\nSTATUS=2 worker processes, queues default" in messages
    assert message.endswith("STATUS=Draining.")
