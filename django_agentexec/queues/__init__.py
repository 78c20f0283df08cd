"""Where an activity waits, and who may run it, outside the database. `get_queue()` is the configured one."""

from __future__ import annotations

import os
import threading

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from ..conf import conf
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
from .live import Chunk, LiveStore
from .workers import WorkerInfo, WorkersReading

__all__ = [
    "EVICTING_POLICIES",
    "Ack",
    "HeartbeatReply",
    "Chunk",
    "Claim",
    "Claims",
    "LiveStore",
    "Message",
    "Outcome",
    "Queue",
    "QueueStats",
    "DatabaseState",
    "WorkerInfo",
    "WorkersReading",
    "get_queue",
]


_made: dict[str | type, Queue] = {}
# Two threads whose first calls meet must get the same one: what is put into the other would be lost in memory.
_one_at_a_time = threading.RLock()
os.register_at_fork(
    before=_one_at_a_time.acquire, after_in_parent=_one_at_a_time.release, after_in_child=_one_at_a_time.release
)


def get_queue() -> Queue:
    """Return this process's queue backend.

    Raises `ImproperlyConfigured` if `AGENTEXEC["QUEUE_BACKEND"]` does not name a `Queue`.
    """
    path = conf.QUEUE_BACKEND
    made = _made.get(path)
    if made is None:
        with _one_at_a_time:
            made = _made.get(path) or _made.setdefault(path, _make_queue(path))
    return made


def _make_queue(path: str | type) -> Queue:
    try:
        backend = import_string(path) if isinstance(path, str) else path
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"AGENTEXEC['QUEUE_BACKEND'] = {path!r} cannot be imported: {error}") from error
    if not (isinstance(backend, type) and issubclass(backend, Queue)):
        raise ImproperlyConfigured(f"AGENTEXEC['QUEUE_BACKEND'] = {path!r} is not a django_agentexec.queues.Queue.")
    return backend()


def reset_queue() -> None:
    """Forget the queue backend; the next `get_queue()` makes a new one with the present settings."""
    _made.clear()


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting in {"AGENTEXEC", "CACHES"}:
        reset_queue()


setting_changed.connect(_on_setting_changed)
