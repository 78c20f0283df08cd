"""The faults of the proxy have the promised effect on a client, and end when healed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.proxy import Network, Proxy

SILENCE = 0.2  # seconds without data after which a test assumes that no data arrives


class Echo(threading.Thread):
    """A server that echoes its input."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=[connection], daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1024):
                connection.sendall(data)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    echo = Echo(tmp_path / "echo.sock")
    echo.start()
    network = Network()
    try:
        yield network.proxy(tmp_path / "echo.sock")
    finally:
        network.close()
        echo.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connect(proxy) as connection:
        assert echoed(connection, b"hello")
        yield connection


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echoed(connection: socket.socket, text: bytes) -> bool:
    connection.sendall(text)
    return connection.recv(1024) == text


def test_data_passes_both_ways(proxy: Proxy, client: socket.socket) -> None:
    assert echoed(client, b"once more")


def test_the_end_of_one_side_is_the_end_of_the_other(proxy: Proxy, client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)

    assert client.recv(1) == b""


def test_a_delay_is_felt_each_way(proxy: Proxy, client: socket.socket) -> None:
    proxy.delay(0.1)
    started = time.monotonic()

    assert echoed(client, b"slow")
    assert time.monotonic() - started >= 0.2


def test_a_cut_closes_connections_and_refuses_new_ones(proxy: Proxy, client: socket.socket) -> None:
    proxy.cut()

    assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def test_after_a_cut_the_same_port_is_open_again(proxy: Proxy) -> None:
    port = proxy.port
    proxy.cut()
    proxy.heal()

    assert proxy.port == port
    with connect(proxy) as connection:
        assert echoed(connection, b"again")


def test_half_open_passes_nothing_and_tells_nobody(proxy: Proxy, client: socket.socket) -> None:
    proxy.half_open()
    client.sendall(b"lost?")
    client.settimeout(SILENCE)

    with pytest.raises(TimeoutError):
        client.recv(1)
    with connect(proxy) as newcomer:  # is accepted
        newcomer.sendall(b"anybody?")
        newcomer.settimeout(SILENCE)
        with pytest.raises(TimeoutError):
            newcomer.recv(1)


def test_half_open_hides_the_end_of_the_other_side(proxy: Proxy, client: socket.socket) -> None:
    proxy.half_open()
    client.shutdown(socket.SHUT_WR)
    client.settimeout(SILENCE)

    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.heal()
    client.settimeout(5)
    assert client.recv(1) == b""


def test_what_was_held_back_arrives_late(proxy: Proxy, client: socket.socket) -> None:
    proxy.half_open()
    client.sendall(b"late")
    proxy.heal()

    assert client.recv(1024) == b"late"


def test_what_was_held_back_is_lost_in_a_reset(proxy: Proxy, client: socket.socket) -> None:
    proxy.half_open()
    client.sendall(b"gone")
    proxy.heal(forget=True)

    with pytest.raises(ConnectionResetError):
        client.recv(1024)


def test_a_reset_is_one_and_new_connections_are_welcome(proxy: Proxy, client: socket.socket) -> None:
    proxy.reset()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connect(proxy) as connection:
        assert echoed(connection, b"new")


def test_a_server_that_is_away_closes_the_connection(proxy: Proxy, client: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "echo.sock").unlink()

    with connect(proxy) as connection:
        assert connection.recv(1) == b""
