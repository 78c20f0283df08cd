"""Limits of providers, kept by the whole fleet: requests, tokens and concurrent calls of models.

`gate.py` is what callers use; `rules.py` reads the setting; the stores count. `get_store()` returns that of this
process.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..queues import Queue, get_queue
from ..queues.redis import RedisQueue
from .base import LimitStore, Request, Reservation, Usage, Wait
from .memory import MemoryLimits
from .redis import RedisLimits
from .rules import Bucket, Limit, Limits, limits

__all__ = [
    "Bucket",
    "Limit",
    "LimitStore",
    "Limits",
    "MemoryLimits",
    "RedisLimits",
    "Request",
    "Reservation",
    "Usage",
    "Wait",
    "get_store",
    "limits",
]

_stores: WeakKeyDictionary[Queue, LimitStore] = WeakKeyDictionary()


def get_store() -> LimitStore:
    """Return the store of the limits, beside the queue: on its Redis, or in memory.

    Raises `ImproperlyConfigured` for another queue backend whose activities cross processes.
    """
    queue = get_queue()
    store = _stores.get(queue)
    return store if store is not None else _stores.setdefault(queue, _make_store(queue))


def _make_store(queue: Queue) -> LimitStore:
    if isinstance(queue, RedisQueue):
        return RedisLimits(lambda: queue.client, conf.KEY_PREFIX)
    if not queue.crosses_processes:
        return MemoryLimits()
    raise ImproperlyConfigured(
        f"AGENTEXEC['MODEL_LIMITS'] needs the queue on Redis, but AGENTEXEC['QUEUE_BACKEND'] is {conf.QUEUE_BACKEND!r}."
    )
