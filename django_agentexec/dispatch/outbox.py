"""Messages that the queue could not be given, kept by the process that had them, to go before its next ones.

Without this, what is enqueued when the queue is back would overtake, within its lock key, what was enqueued while it
was away and still waits for the reconciler, which finds whatever a process takes with it when it ends. What has ended
meanwhile does no harm: a worker that claims it finds that out in its row.
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

MAX_KEPT = 10_000  # messages of one queue name: some megabytes; what comes then waits for the reconciler

_KeptMessages = list[tuple[float, Message]]  # with the monotonic time at which it was handed in


class _Backlog:
    """What one queue backend could not be given."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: dict[str, _KeptMessages] = {}

    def keep(self, queue: str, messages: Sequence[Message]) -> None:
        kept = self.kept.setdefault(queue, [])
        # A wish to run once more is for whoever runs it now: later, it would repeat a run of its own.
        messages = [replace(message, again=False) for message in messages[: max(0, MAX_KEPT - len(kept))]]
        kept += [(time.monotonic(), message) for message in messages]


_backlogs: WeakKeyDictionary[Queue, _Backlog] = WeakKeyDictionary()


def send_or_keep(backend: Queue, queue: str, messages: Sequence[Message]) -> int:
    """Give `messages` to the queue, after those that it could not be given before; return how many it did not have.

    Raises `QueueUnavailable`, having kept them.
    """
    mine = _backlogs.get(backend)
    if mine is None or not mine.kept.get(queue):
        try:
            return backend.enqueue(queue, messages)
        except QueueUnavailable:
            _backlogs.setdefault(backend, _Backlog()).keep(queue, messages)
            raise
    # One thread at a time, so that nobody overtakes what another one is about to deliver.
    if not mine.lock.acquire(timeout=conf.REDIS_TIMEOUT):
        mine.keep(queue, messages)
        raise QueueUnavailable("The queue's Redis has kept others waiting.")
    try:
        kept = list(mine.kept[queue])
        added = backend.enqueue(queue, [*(_aged(message, since) for since, message in kept), *messages])
        del mine.kept[queue][: len(kept)]
        return added
    except QueueUnavailable:
        mine.keep(queue, messages)
        raise
    finally:
        mine.lock.release()


def _aged(message: Message, since: float) -> Message:
    """Return the message with what is left of its delay."""
    return replace(message, delay=max(0.0, message.delay + since - time.monotonic())) if message.delay else message


def install() -> None:
    """Start forked processes without the parent's messages; called when the app is ready."""
    reset_after_fork(_backlogs.clear)
