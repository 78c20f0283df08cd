"""A pool under systemd reports its state; elsewhere nothing is sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_agentexec.pool.systemd import ServiceManager


@pytest.fixture
def manager_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end."""
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(5)
        yield receiver


def has_message(receiver: socket.socket) -> bool:
    receiver.setblocking(False)
    try:
        receiver.recv(1024)
    except BlockingIOError:
        return False
    return True


def test_readiness_is_reported_once(manager_socket: socket.socket) -> None:
    manager = ServiceManager()
    manager.ready("2 workers")
    manager.ready("2 workers")

    assert manager_socket.recv(1024) == b"READY=1\nSTATUS=2 workers"
    assert not has_message(manager_socket)


def test_the_watchdog_is_reset_within_half_of_its_time(
    manager_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    clock = 100.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    manager = ServiceManager()

    manager.alive()
    assert manager_socket.recv(1024) == b"WATCHDOG=1"
    clock = 129.0
    manager.alive()
    assert not has_message(manager_socket)
    manager_socket.settimeout(5)
    clock = 130.0
    manager.alive()
    assert manager_socket.recv(1024) == b"WATCHDOG=1"


@pytest.mark.parametrize("variables", [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, {}])
def test_a_watchdog_of_another_process_is_left_alone(
    manager_socket: socket.socket, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ServiceManager().alive()
    assert not has_message(manager_socket)


def test_a_missing_manager_is_logged_and_harmless(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    ServiceManager().stopping("draining")
    assert "could not be notified" in caplog.text


def test_nothing_is_sent_without_systemd(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceManager().ready("2 workers")
    assert caplog.text == ""
