"""What a measurement does with the server: counting the commands of all clients, and filling it with keys of others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from redis import Redis

_END = "the end of the measurement"


def commands_per_second(url: str, seconds: float) -> float:
    """Return how many commands per second clients send; what scripts call inside is left out.

    Watched by MONITOR, which costs a busy server much and an idle one nothing.
    """
    seen = 0
    # Nobody may say anything for long. Its monitor() has no types.
    watcher: Any = Redis.from_url(url, socket_timeout=None)
    client = Redis.from_url(url)
    client.ping()  # what it says to connect is not to be counted
    with client, watcher.monitor() as monitor:

        def count() -> None:
            nonlocal seen
            for command in monitor.listen():
                if _END in command["command"]:
                    return
                seen += command["client_type"] != "lua"

        thread = Thread(target=count, daemon=True)
        thread.start()
        time.sleep(seconds)
        client.echo(_END)
        thread.join(10)
    return seen / seconds


@contextmanager
def foreign_keys(url: str, count: int) -> Iterator[None]:
    """Keep so many keys of somebody else in the server."""
    batches = [[f"foreign:{n}" for n in range(at, min(at + 10_000, count))] for at in range(0, count, 10_000)]
    with Redis.from_url(url) as client:
        for keys in batches:
            client.mset(dict.fromkeys(keys, "x"))
        try:
            yield
        finally:
            for keys in batches:
                client.unlink(*keys)
