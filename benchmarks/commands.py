"""Helpers for the Redis server: count the commands of all clients, and fill it with foreign keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from redis import Redis

_END = "the end of the measurement"


def commands_per_second(url: str, seconds: float) -> float:
    """Return the commands per second that clients send, without commands inside of scripts.

    Watched by MONITOR, which costs a busy server much and an idle one nothing.
    """
    seen = 0
    # The timeout is long, since an idle server may receive no command for a while. monitor() is untyped.
    watcher: Any = Redis.from_url(url, socket_timeout=None)
    client = Redis.from_url(url)
    client.ping()  # connects now, so that commands of the connection are not counted
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
    """Keep this number of foreign keys in the server."""
    batches = [[f"foreign:{n}" for n in range(at, min(at + 10_000, count))] for at in range(0, count, 10_000)]
    with Redis.from_url(url) as client:
        for keys in batches:
            client.mset(dict.fromkeys(keys, "x"))
        try:
            yield
        finally:
            for keys in batches:
                client.unlink(*keys)
