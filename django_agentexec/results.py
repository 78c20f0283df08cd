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
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.transaction import TransactionManagementError

from .activity.store import database
from .dispatch.push import waits_for_commit
from .exceptions import ActivityNotFound, QueueUnavailable
from .models import FINISHED, Activity
from .queues import Queue, get_queue
from .queues.base import Listener
from .tasks.outcome import outcome
from .tasks.waits import Awaited, Timeout, awaited_id, check_no_deadlock, check_not_itself, seconds_of

logger = logging.getLogger(__name__)

RECHECK = 2.0  # seconds between two looks at the row without a notification
RETRY_PAUSE = 2.0  # seconds until who could not listen tries again
LISTEN_SLICE = 0.5  # seconds of one read: how long the thread outlives its last waiter


def get_result(task: Awaited, timeout: Timeout = 300) -> Any:
    """Wait for an activity to complete, up to `timeout` seconds, and return its result.

    `task` is what `enqueue` returned, or an `agent_id`. `timeout` may be a timedelta, or None for no limit. Raises
    `TaskFailed`, `TaskCanceled`, `ActivityNotFound`, and the built-in `TimeoutError`, after which the activity goes
    on. Inside the transaction that enqueued it no result can come: that raises Django's `TransactionManagementError`.
    A handler that waits for its own activity, or for an ancestor that is suspended until it ends, gets
    `InvalidOption`.
    """
    agent_id, deadline = _agent_id(task), time.monotonic() + seconds_of(timeout)
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


async def aget_result(task: Awaited, timeout: Timeout = 300) -> Any:  # noqa: ASYNC109  # the sync twin's parameter
    """Async version of `get_result`."""
    agent_id, deadline = _agent_id(task), time.monotonic() + seconds_of(timeout)
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


def gather(*tasks: Awaited, timeout: Timeout = 300) -> tuple[Any, ...]:
    """Wait for all of `tasks`, up to `timeout` seconds in all (or a timedelta, or None), and return their results.

    Raises what `get_result` raises, for the first of them (in order) that has no result, and `TypeError` before any
    wait for what cannot be awaited, such as a list of handles.
    """
    for task in tasks:
        _agent_id(task)
    deadline = time.monotonic() + seconds_of(timeout)
    return tuple(get_result(task, max(0.0, deadline - time.monotonic())) for task in tasks)


async def agather(*tasks: Awaited, timeout: Timeout = 300) -> tuple[Any, ...]:  # noqa: ASYNC109  # as above
    """Async version of `gather`."""
    for task in tasks:
        _agent_id(task)
    # One after the other takes no longer than all at once, and leaves nobody waiting when one has failed.
    deadline = time.monotonic() + seconds_of(timeout)
    return tuple([await aget_result(task, max(0.0, deadline - time.monotonic())) for task in tasks])


def _agent_id(task: Awaited) -> UUID:
    """Return the id of what is awaited. Raises at once what no wait could change."""
    agent_id = awaited_id(task)
    check_not_itself(agent_id)
    return agent_id


def _finished(agent_id: UUID) -> Activity | None:
    """Return the row if the activity has ended."""
    activity = Activity.objects.using(database()).defer("context", "metadata").filter(agent_id=agent_id).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    if activity.status in FINISHED:
        return activity
    check_no_deadlock(activity)
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


def _too_late(agent_id: UUID, timeout: Timeout) -> TimeoutError:
    return TimeoutError(f"Activity {agent_id} has not ended within {seconds_of(timeout):g} s; it goes on.")


class _Line:
    """What one thread listens to, and whether it does so already."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.listener: Listener | None = None


class _Notifications:
    """One thread and one connection for all that await something in this process; none if nobody does.

    The thread connects: whoever waits has a time limit, and a server that hangs takes its time to be given up.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._callbacks: dict[UUID, list[Callable[[], object]]] = defaultdict(list)
        self._line: _Line | None = None

    def add(self, wish: watching) -> None:
        with self._changed:
            if wish.is_over:
                return  # whoever waited was canceled before it had begun
            self._callbacks[wish.agent_id].append(wish.callback)
            if self._line is None or self._line.queue is not get_queue():
                line = _Line(get_queue())
                thread = threading.Thread(target=self._serve, args=[line], name="agentexec-results", daemon=True)
                with suppress(RuntimeError):  # no room for a thread: the next one to wait tries again
                    thread.start()
                    self._line = line
            elif self._line.listener is not None:
                self._tell(self._line.listener.watch, wish.agent_id)

    def remove(self, wish: watching) -> None:
        with self._changed:
            callbacks = self._callbacks.get(wish.agent_id, [])
            if wish.callback not in callbacks:
                return
            callbacks.remove(wish.callback)
            if not callbacks:
                del self._callbacks[wish.agent_id]
                if self._line is not None and self._line.listener is not None:
                    self._tell(self._line.listener.unwatch, wish.agent_id)
            if not self._callbacks:
                self._changed.notify_all()

    def _tell(self, verb: Callable[[UUID], object], agent_id: UUID) -> None:
        with suppress(QueueUnavailable):  # which the thread finds out, too
            verb(agent_id)

    def _serve(self, line: _Line) -> None:
        while self._is_wanted(line):
            try:
                self._listen(line)
            except QueueUnavailable:
                logger.info("The queue is away; results are found by looking at the rows.")
            except Exception:  # of a backend of the project's own, or of a callback
                logger.warning("Listening for results failed; they are found by looking at the rows.", exc_info=True)
            with self._changed:
                line.listener = None
                self._changed.wait_for(lambda: not (self._line is line and self._callbacks), RETRY_PAUSE)

    def _listen(self, line: _Line) -> None:
        listener = line.queue.listen_finished()
        try:
            with self._changed:
                line.listener = listener
                for agent_id in self._callbacks:
                    listener.watch(agent_id)
                awaited_ids = list(self._callbacks)
            for agent_id in awaited_ids:
                self._call(agent_id)  # it may have ended before anybody listened
            while self._is_wanted(line):
                ended = listener.get(LISTEN_SLICE)
                if ended is not None:
                    self._call(ended)
        finally:
            listener.close()

    def _call(self, agent_id: UUID) -> None:
        with self._changed:
            callbacks = list(self._callbacks.get(agent_id, []))
        for callback in callbacks:
            callback()

    def _is_wanted(self, line: _Line) -> bool:
        with self._changed:
            if self._line is not line:
                return False
            if not self._callbacks:
                self._line = None
            return bool(self._callbacks)


_notifications = _Notifications()
# A forked process has not the parent's thread, and must leave its connection alone.
os.register_at_fork(after_in_child=_notifications.__init__)  # type: ignore[misc]


class watching:
    """Calls `callback`, in another thread, whenever the activity may have ended. A context manager.

    Without the queue's server nobody is called: look at the row now and then as well.
    """

    def __init__(self, agent_id: UUID, callback: Callable[[], object]) -> None:
        self.agent_id = agent_id
        self.callback = callback
        self.is_over = False

    def __enter__(self) -> None:
        _notifications.add(self)

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        _notifications.remove(self)
