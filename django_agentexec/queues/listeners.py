"""Streams of activity ids over Redis Pub/Sub: which ones were canceled, and which ones have ended.

A message lost while the connection is down is not repeated: whoever listens asks the database from time
to time as well. Not redis-py's `PubSub`: that connects anew wherever an error is met, in the thread that reads and in
the one that subscribes at once, and then one of the two sockets is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from redis import Redis

from ..exceptions import QueueUnavailable
from .base import Listener
from .connection import reachable


class _PubSubListener(Listener):
    """One connection outside of the client's pool, opened once."""

    def __init__(self, client: Redis) -> None:
        pool = client.connection_pool
        self._connection: Any = pool.connection_class(**pool.connection_kwargs)
        self._lock = threading.Lock()
        self._is_broken = False
        with self._unbroken():
            self._connection.connect()

    def get(self, timeout: float) -> UUID | None:
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            with self._unbroken():
                if not self._connection.can_read(left):
                    return None
                kind, _, data = self._connection.read_response(push_request=True)
            if kind == b"message":
                return UUID(data.decode())
            # A confirmed subscription has ended the read; what follows it may be there already.

    def watch(self, agent_id: UUID) -> None:
        """Hear of this activity from now on."""

    def unwatch(self, agent_id: UUID) -> None:
        """Stop hearing of this activity."""

    def close(self) -> None:
        with self._lock:
            self._is_broken = True
            self._connection.disconnect()

    def _send(self, *command: str) -> None:
        with self._lock, self._unbroken():
            self._connection.send_command(*command, check_health=False)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Let nobody use the connection after an error: redis-py would open it again, without its subscriptions."""
        if self._is_broken:
            raise QueueUnavailable("The connection to the queue's Redis was closed.")
        try:
            with reachable():
                yield
        except (AttributeError, TypeError, ValueError) as error:
            # What redis-py says when another thread has closed the socket meanwhile.
            self._is_broken = True
            raise QueueUnavailable("The connection to the queue's Redis was closed.") from error
        except BaseException:
            self._is_broken = True
            raise


class CanceledListener(_PubSubListener):
    """Hears of every running activity that is canceled, in whichever queue."""

    def __init__(self, client: Redis, channel: str) -> None:
        super().__init__(client)
        self._send("SUBSCRIBE", channel)


class FinishedListener(_PubSubListener):
    """Hears of the end of the activities it watches: one channel each, so that others cost nothing."""

    def __init__(self, client: Redis, prefix: str) -> None:
        super().__init__(client)
        self._prefix = prefix

    def watch(self, agent_id: UUID) -> None:
        self._send("SUBSCRIBE", f"{self._prefix}{agent_id}")

    def unwatch(self, agent_id: UUID) -> None:
        self._send("UNSUBSCRIBE", f"{self._prefix}{agent_id}")
