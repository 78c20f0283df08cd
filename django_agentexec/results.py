"""Results: wait for activities to end, and get what they returned, in the declared type.

Woken by the queue's notification; what counts is the row, so results survive the queue, and a notification
that gets lost costs two seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.transaction import TransactionManagementError

from .activity.dispatch import waits_for_commit
from .activity.writer import database
from .exceptions import ActivityNotFound, QueueUnavailable
from .models import FINISHED, Activity
from .queues import Queue, get_queue
from .queues.base import Listener
from .tasks import ActivityHandle
from .tasks.outcome import outcome
from .values import checked_id

logger = logging.getLogger(__name__)

Awaited = ActivityHandle | UUID
RECHECK = 2.0  # seconds between two looks at the row without a notification
LISTEN_SLICE = 0.5  # seconds of one read: how long the thread outlives its last waiter


def get_result(task: Awaited, timeout: float = 300) -> Any:
    """Wait for an activity to complete, up to `timeout` seconds, and return its result.

    `task` is what `enqueue` returned, or an `agent_id`. Raises `TaskFailed`, `TaskCanceled`,
    `ActivityNotFound`, and the built-in `TimeoutError`, after which the activity goes on. Inside the
    transaction that enqueued it no result can come: that raises Django's `TransactionManagementError`.
    """
    agent_id, deadline = _agent_id(task), time.monotonic() + timeout
    ended = threading.Event()
    with watching(agent_id, ended.set):
        while True:
            activity = _finished(agent_id)
            if activity is not None:
                return outcome(activity)
            left = deadline - time.monotonic()
            if left <= 0:
                raise _too_late(agent_id, timeout)
            ended.wait(min(left, RECHECK))
            ended.clear()


async def aget_result(task: Awaited, timeout: float = 300) -> Any:  # noqa: ASYNC109  # the sync twin's parameter
    """Do what `get_result` does, in async code."""
    agent_id, deadline = _agent_id(task), time.monotonic() + timeout
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    notified = watching(agent_id, partial(_wake, loop, ended))
    try:
        await sync_to_async(notified.__enter__)()
        while True:
            activity = await sync_to_async(_finished)(agent_id)
            if activity is not None:
                return await sync_to_async(outcome)(activity)
            left = deadline - time.monotonic()
            if left <= 0:
                raise _too_late(agent_id, timeout)
            try:
                await asyncio.wait_for(ended.wait(), min(left, RECHECK))
            except TimeoutError:
                continue  # no notification: look again
            ended.clear()
    finally:
        notified.__exit__()


def gather(*tasks: Awaited, timeout: float = 300) -> tuple[Any, ...]:
    """Wait for all of `tasks`, up to `timeout` seconds in all, and return their results in order.

    Raises what `get_result` raises, for the first of them (in order) that has no result.
    """
    deadline = time.monotonic() + timeout
    return tuple(get_result(task, max(0.0, deadline - time.monotonic())) for task in tasks)


async def agather(*tasks: Awaited, timeout: float = 300) -> tuple[Any, ...]:  # noqa: ASYNC109  # as above
    """Do what `gather` does, in async code."""
    # One after the other takes no longer than all at once, and leaves nobody waiting when one has failed.
    deadline = time.monotonic() + timeout
    return tuple([await aget_result(task, max(0.0, deadline - time.monotonic())) for task in tasks])


def _agent_id(task: Awaited) -> UUID:
    return task.agent_id if isinstance(task, ActivityHandle) else checked_id(task)


def _finished(agent_id: UUID) -> Activity | None:
    """Return the row if the activity has ended."""
    activity = Activity.objects.using(database()).defer("context", "metadata").filter(agent_id=agent_id).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    if activity.status in FINISHED:
        return activity
    if waits_for_commit(agent_id):
        raise TransactionManagementError(
            f"Activity {agent_id} was enqueued in a transaction that is not committed: no worker can see it before "
            "this wait is over. Wait after the transaction (ATOMIC_REQUESTS makes one of each view); in a TestCase, "
            "call django_agentexec.testing.drain() first."
        )
    return None


def _wake(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(ended.set)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more


def _too_late(agent_id: UUID, timeout: float) -> TimeoutError:
    return TimeoutError(f"Activity {agent_id} has not ended within {timeout:g} s; it goes on.")


class _Notifications:
    """One thread and one connection for all that await something in this process; none if nobody does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[UUID, list[Callable[[], object]]] = defaultdict(list)
        self._listener: Listener | None = None
        self._queue: Queue | None = None

    def add(self, agent_id: UUID, callback: Callable[[], object]) -> None:
        with self._lock:
            self._callbacks[agent_id].append(callback)
            try:
                if self._listener is None or self._queue is not get_queue():
                    self._queue = get_queue()
                    self._listener = self._queue.listen_finished()
                    for watched in self._callbacks:
                        self._listener.watch(watched)
                    threading.Thread(
                        target=self._listen, args=[self._listener], name="agentexec-results", daemon=True
                    ).start()
                else:
                    self._listener.watch(agent_id)
            except QueueUnavailable:
                self._listener = None  # then the row is looked at now and then

    def remove(self, agent_id: UUID, callback: Callable[[], object]) -> None:
        with self._lock:
            if callback not in self._callbacks.get(agent_id, []):
                return
            self._callbacks[agent_id].remove(callback)
            if not self._callbacks[agent_id]:
                del self._callbacks[agent_id]
                self._unwatch(agent_id)

    def _unwatch(self, agent_id: UUID) -> None:
        try:
            if self._listener is not None:
                self._listener.unwatch(agent_id)
        except QueueUnavailable:
            self._listener = None

    def _listen(self, listener: Listener) -> None:
        try:
            while self._is_wanted(listener):
                agent_id = listener.get(LISTEN_SLICE)
                with self._lock:
                    callbacks = list(self._callbacks.get(agent_id, [])) if agent_id else []
                for callback in callbacks:
                    callback()
        except QueueUnavailable:
            logger.info("The queue is away; results are found by looking at the rows.")
        except Exception:  # of a backend of the project's own, or of a callback
            logger.warning("Listening for results failed; they are found by looking at the rows.", exc_info=True)
        finally:
            with self._lock:
                if self._listener is listener:
                    self._listener = None
            listener.close()

    def _is_wanted(self, listener: Listener) -> bool:
        with self._lock:
            if self._listener is not listener:
                return False
            if not self._callbacks:
                self._listener = None
            return bool(self._callbacks)


_notifications = _Notifications()
# A forked process has not the parent's thread, and must leave its connection alone.
os.register_at_fork(after_in_child=_notifications.__init__)  # type: ignore[misc]


class watching:
    """Calls `callback`, in another thread, whenever the activity may have ended. A context manager.

    Without the queue's server nobody is called: look at the row now and then as well.
    """

    def __init__(self, agent_id: UUID, callback: Callable[[], object]) -> None:
        self._arguments = agent_id, callback

    def __enter__(self) -> None:
        _notifications.add(*self._arguments)

    def __exit__(self, *_: object) -> None:
        _notifications.remove(*self._arguments)
