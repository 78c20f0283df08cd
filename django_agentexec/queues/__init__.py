"""The queue: the place of waiting and claimed activities outside the database. `get_queue()` returns the backend."""

from __future__ import annotations

import threading
from functools import cache

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from ..conf import conf
from ..forks import hold_during_fork
from .base import (
    EVICTING_POLICIES,
    Ack,
    Claim,
    Claims,
    DatabaseState,
    HeartbeatReply,
    Message,
    Outcome,
    Queue,
    QueueStats,
)
from .board import WorkerInfo, WorkersReading
from .limits import NO_LIMITS, Limit, Limits
from .live import Chunk, LiveStore

__all__ = [
    "EVICTING_POLICIES",
    "Ack",
    "HeartbeatReply",
    "Chunk",
    "Claim",
    "Claims",
    "Limit",
    "Limits",
    "LiveStore",
    "Message",
    "NO_LIMITS",
    "Outcome",
    "Queue",
    "QueueStats",
    "DatabaseState",
    "WorkerInfo",
    "WorkersReading",
    "get_queue",
]


_backends: dict[str | type, Queue] = {}
# Concurrent first calls must return the same object: activities enqueued in a second in-memory queue would be lost.
_creation_lock = threading.RLock()


def install() -> None:
    """Keep the backend usable after a fork, and follow changes of the settings in tests."""
    hold_during_fork(_creation_lock)
    setting_changed.connect(_on_setting_changed)


@cache  # every enqueue and each round trip of a worker asks
def get_queue() -> Queue:
    """Return this process's queue backend.

    Raises `ImproperlyConfigured` if `AGENTEXEC["QUEUE_BACKEND"]` does not name a `Queue`.
    """
    path = conf.QUEUE_BACKEND
    backend = _backends.get(path)
    if backend is None:
        with _creation_lock:
            backend = _backends.get(path) or _backends.setdefault(path, _create_queue(path))
    return backend


def _create_queue(path: str | type) -> Queue:
    try:
        backend = import_string(path) if isinstance(path, str) else path
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"AGENTEXEC['QUEUE_BACKEND'] = {path!r} cannot be imported: {error}") from error
    if not (isinstance(backend, type) and issubclass(backend, Queue)):
        raise ImproperlyConfigured(f"AGENTEXEC['QUEUE_BACKEND'] = {path!r} is not a django_agentexec.queues.Queue.")
    return backend()


def reset_queue() -> None:
    """Discard the queue backend; the next `get_queue()` creates another with the current settings."""
    get_queue.cache_clear()
    _backends.clear()


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting in {"AGENTEXEC", "CACHES"}:
        reset_queue()
