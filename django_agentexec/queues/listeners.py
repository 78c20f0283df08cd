"""Streams of activity ids over Redis Pub/Sub: which ones were canceled, and which ones have ended.

A message lost while the connection is down is not repeated: whoever listens asks the database from time
to time as well. After an error the listener can be used on; it subscribes again by itself.
"""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID

from redis import Redis

from ..exceptions import QueueUnavailable
from .base import Listener
from .connection import reachable


class _PubSubListener(Listener):
    def __init__(self, client: Redis, channel: str) -> None:
        self._pubsub: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
        self._lock = threading.Lock()
        with reachable():
            self._pubsub.subscribe(channel)

    def get(self, timeout: float) -> UUID | None:
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            message = self._read(left)
            if message and message["type"] == "message":
                return UUID(message["data"].decode())
            # A confirmed subscription also ends the read, without a message.
            if left <= 0:
                return None

    def _read(self, timeout: float) -> Any:
        try:
            with reachable():
                return self._pubsub.get_message(timeout=timeout)
        except (TypeError, ValueError) as error:
            # What waiting on a socket says that another thread has closed.
            raise QueueUnavailable("The connection to the queue's Redis was closed.") from error

    def watch(self, agent_id: UUID) -> None:
        """Hear of this activity from now on."""

    def unwatch(self, agent_id: UUID) -> None:
        """Stop hearing of this activity."""

    def close(self) -> None:
        self._pubsub.close()


class CanceledListener(_PubSubListener):
    """Hears of every running activity that is canceled, in whichever queue."""


class FinishedListener(_PubSubListener):
    """Hears of the end of the activities it watches: one channel each, so that others cost nothing."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self._channel_prefix = prefix
        # A connection must be subscribed to something before a thread can wait on it.
        super().__init__(client, f"{prefix}none")

    def watch(self, agent_id: UUID) -> None:
        with self._lock, reachable():
            self._pubsub.subscribe(f"{self._channel_prefix}{agent_id}")

    def unwatch(self, agent_id: UUID) -> None:
        with self._lock, reachable():
            self._pubsub.unsubscribe(f"{self._channel_prefix}{agent_id}")
