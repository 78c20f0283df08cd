"""The store of limits of this process."""

from __future__ import annotations

import threading

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..forks import hold_during_fork
from ..queues import Queue, get_queue
from ..queues.redis import RedisQueue
from .base import LimitStore
from .memory import MemoryLimits
from .redis import RedisLimits

_latest: tuple[Queue, LimitStore] | None = None
_creation_lock = threading.Lock()


def get_store() -> LimitStore:
    """Return the store of the limits, beside the queue: on its Redis, or in memory.

    Raises `ImproperlyConfigured` for another queue backend whose activities cross processes.
    """
    global _latest
    queue = get_queue()
    with _creation_lock:
        if _latest is None or _latest[0] is not queue:
            _latest = queue, _make_store(queue)
        return _latest[1]


def install() -> None:
    """Keep the store usable after a fork."""
    hold_during_fork(_creation_lock)


def _make_store(queue: Queue) -> LimitStore:
    if isinstance(queue, RedisQueue):
        return RedisLimits(lambda: queue.client, conf.KEY_PREFIX)
    if not queue.crosses_processes:
        return MemoryLimits()
    raise ImproperlyConfigured(
        f"AGENTEXEC['MODEL_LIMITS'] needs the queue on Redis, but AGENTEXEC['QUEUE_BACKEND'] is {conf.QUEUE_BACKEND!r}."
    )
