"""Outbox of messages that could not be sent while the queue was unavailable; sent before later messages.

Without it, activities enqueued after an outage would overtake, within their lock key, activities that were enqueued
during the outage and wait for the reconciler. The reconciler also finds the messages of processes that have ended.
Messages of activities that have ended meanwhile are harmless: the worker that claims them reads it in the row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..forks import reset_after_fork
from ..queues import Message, Queue

MAX_UNSENT = 10_000  # messages of one queue name, some megabytes; the reconciler sends further activities

_UnsentMessages = list[tuple[float, Message]]
"""Messages, each with the monotonic time at which it was to be sent."""


class _Outbox:
    """The unsent messages of one queue backend."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.unsent: dict[str, _UnsentMessages] = {}

    def add(self, queue: str, messages: Sequence[Message]) -> None:
        unsent = self.unsent.setdefault(queue, [])
        # `again` refers to the run in progress at this moment; later, it would repeat another run.
        messages = [replace(message, again=False) for message in messages[: max(0, MAX_UNSENT - len(unsent))]]
        unsent += [(time.monotonic(), message) for message in messages]


_outboxes: WeakKeyDictionary[Queue, _Outbox] = WeakKeyDictionary()


def send_or_store(backend: Queue, queue: str, messages: Sequence[Message]) -> int:
    """Send `messages` after the unsent messages of the queue; return the number of messages new to the queue.

    Raises `QueueUnavailable` after storing them for the next call.
    """
    outbox = _outboxes.get(backend)
    if outbox is None or not outbox.unsent.get(queue):
        try:
            return backend.enqueue(queue, messages)
        except QueueUnavailable:
            _outboxes.setdefault(backend, _Outbox()).add(queue, messages)
            raise
    # One thread at a time, so that no message overtakes the messages that another thread is sending.
    if not outbox.lock.acquire(timeout=conf.REDIS_TIMEOUT):
        outbox.add(queue, messages)
        raise QueueUnavailable("Another thread is still waiting for the queue's Redis.")
    try:
        unsent = list(outbox.unsent[queue])
        added = backend.enqueue(queue, [*(_with_rest_of_delay(message, since) for since, message in unsent), *messages])
        del outbox.unsent[queue][: len(unsent)]
        return added
    except QueueUnavailable:
        outbox.add(queue, messages)
        raise
    finally:
        outbox.lock.release()


def _with_rest_of_delay(message: Message, since: float) -> Message:
    """Return the message with the remaining part of its delay."""
    return replace(message, delay=max(0.0, message.delay + since - time.monotonic())) if message.delay else message


def install() -> None:
    """Clear the outboxes in forked processes, since the parent sends its messages; called when the app is ready."""
    reset_after_fork(_outboxes.clear)
