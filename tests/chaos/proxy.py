"""A TCP proxy that simulates a bad network: delays, closed connections, silence, resets. Each pool has a proxy for each
server, so that a single pool may be disconnected while others continue."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK = 65_536  # bytes passed on at once
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: a close sends RST instead of FIN


class Network:
    """The thread in which all proxies of a run live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-network", daemon=True)
        self._thread.start()
        self._proxies: list[Proxy] = []

    def proxy(self, target: Path) -> Proxy:
        """Return a proxy with its own port to the server behind this Unix socket."""
        proxy = Proxy(self, target)
        self._proxies.append(proxy)
        return proxy

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread of the network, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        """End all proxies."""
        for proxy in self._proxies:
            proxy.close()
        self.do(_end_all_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Proxy:
    """A proxy from `port` on loopback to a Unix socket, subject to its current fault.

    Every method may be called from any thread, and returns when the change is in force.
    """

    def __init__(self, network: Network, target: Path) -> None:
        self._network = network
        self._target = target
        self._latency = 0.0
        self._links: set[_Link] = set()
        # Bound but not listening, it reserves the port while the proxy refuses connections.
        self._reservation = _bound(0)
        self.port: int = self._reservation.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._open = network.do(_new_gate())
        network.do(self._listen())

    def delay(self, seconds: float) -> None:
        """Delay all data by this time, in each direction."""
        self._latency = seconds

    def cut(self) -> None:
        """Close all connections, and refuse new connections."""
        self._network.do(self._cut())

    def half_open(self) -> None:
        """Pass no data in either direction: connections remain open, and new connections are accepted."""
        self._network.do(self._shut())

    def reset(self) -> None:
        """Reset (RST) all connections; new connections are accepted."""
        self._network.do(self._reset())

    def heal(self, *, forget: bool = False) -> None:
        """End the fault. Data that was held back while half open arrives late, or with `forget` is lost in a reset, as
        with a firewall that has lost its connections."""
        self._latency = 0.0
        self._network.do(self._heal(forget))

    def close(self) -> None:
        """Close everything."""
        self._network.do(self._cut())
        self._reservation.close()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=_bound(self.port))

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._links):
            link.close()

    async def _shut(self) -> None:
        self._open.clear()

    async def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _heal(self, forget: bool) -> None:
        if forget and not self._open.is_set():
            await self._reset()
        self._open.set()
        await self._listen()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._open.wait()
            upstream = await asyncio.open_unix_connection(str(self._target))
            link.writers.append(upstream[1])
            await asyncio.wait(
                [
                    link.start(self._pump(reader, upstream[1])),
                    link.start(self._pump(upstream[0], writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except OSError:
            pass  # the server is unavailable
        finally:
            link.close()
            self._links.discard(link)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._latency:
                    await asyncio.sleep(self._latency)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        await self._open.wait()  # a disconnected side does not notice the end of the other side either


class _Link:
    """A connection: its two sides, and the tasks that pass data between them."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, pump: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(pump)
        self._tasks.append(task)
        return task

    def reset(self) -> None:
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family == socket.AF_INET and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self.writers:
            writer.transport.abort()


async def _end_all_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _new_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound
