"""Streams of activity ids over Redis Pub/Sub: canceled and finished activities.

A message that is lost while the connection is down is not repeated; callers therefore also poll the database.
redis-py's `PubSub` is not used: after an error, the reading thread and the subscribing thread both reconnect, and
one of the two sockets is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from redis import Redis

from ...exceptions import QueueUnavailable
from ..base import Listener
from .connection import reachable


class _PubSubListener(Listener):
    """A listener on one connection outside of the client's pool, opened once."""

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
            # A confirmation of a subscription ended the read; messages may follow it.

    def watch(self, agent_id: UUID) -> None:
        """Do nothing; a subclass subscribes to the activity."""

    def unwatch(self, agent_id: UUID) -> None:
        """Do nothing; a subclass unsubscribes from the activity."""

    def close(self) -> None:
        with self._lock:
            self._is_broken = True
            self._connection.disconnect()

    def _send(self, *command: str) -> None:
        with self._lock, self._unbroken():
            self._connection.send_command(*command, check_health=False)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Prevent any use of the connection after an error: redis-py would reopen it without its subscriptions."""
        if self._is_broken:
            raise QueueUnavailable("The connection to the queue's Redis was closed.")
        try:
            with reachable():
                yield
        except (AttributeError, TypeError, ValueError) as error:
            # redis-py raises these if another thread has closed the socket meanwhile.
            self._is_broken = True
            raise QueueUnavailable("The connection to the queue's Redis was closed.") from error
        except BaseException:
            self._is_broken = True
            raise


class CanceledListener(_PubSubListener):
    """A listener for canceled running activities of all queues."""

    def __init__(self, client: Redis, channel: str) -> None:
        super().__init__(client)
        self._send("SUBSCRIBE", channel)


class FinishedListener(_PubSubListener):
    """A listener for the ends of watched activities: one channel each, so that other activities cost nothing."""

    def __init__(self, client: Redis, prefix: str) -> None:
        super().__init__(client)
        self._prefix = prefix

    def watch(self, agent_id: UUID) -> None:
        self._send("SUBSCRIBE", f"{self._prefix}{agent_id}")

    def unwatch(self, agent_id: UUID) -> None:
        self._send("UNSUBSCRIBE", f"{self._prefix}{agent_id}")
