"""Waits for the end of an activity. The queue notifies the waiters; the row decides.

Results outlive the queue, and a lost notification delays a waiter by two seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from ..background import start_daemon_thread
from ..current import current_attempt
from ..dispatch.push import waits_for_commit
from ..exceptions import ActivityNotFound, InvalidOption, QueueUnavailable, ResultTimeout
from ..forks import reset_after_fork
from ..models import DECISIONS, FINISHED, Activity, Status, WaitingFor
from ..queues import Queue, get_queue
from ..queues.base import Listener
from ..translation import gettext as _
from ..validation import validate_timeout
from .store import database
from .suspension import reason_text

logger = logging.getLogger(__name__)

RECHECK = 2.0  # seconds between two reads of the row without a notification
RETRY_PAUSE = 2.0  # seconds before the thread connects again
LISTEN_SLICE = 0.5  # seconds of one read, and so the time by which the thread outlives its last waiter


def wait_for_end(agent_id: UUID, timeout: float | timedelta | None) -> Activity:
    """Return the row of the activity once it has ended. Raises as `get_result` does."""
    check_not_own(agent_id)
    deadline = time.monotonic() + validate_timeout(timeout)
    ended = threading.Event()
    with watching(agent_id, ended.set):
        while True:
            activity = _read(agent_id)
            if activity.status in FINISHED:
                return activity
            left = deadline - time.monotonic()
            if left <= 0:
                raise _timed_out(activity, timeout)
            ended.wait(min(left, RECHECK))
            ended.clear()


async def await_for_end(agent_id: UUID, timeout: float | timedelta | None) -> Activity:
    """Async version of `wait_for_end`."""
    check_not_own(agent_id)
    deadline = time.monotonic() + validate_timeout(timeout)
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    notified = watching(agent_id, partial(_wake, loop, ended))
    try:
        await sync_to_async(notified.__enter__)()
        while True:
            activity = await sync_to_async(_read)(agent_id)
            if activity.status in FINISHED:
                return activity
            left = deadline - time.monotonic()
            if left <= 0:
                raise _timed_out(activity, timeout)
            try:
                await asyncio.wait_for(ended.wait(), min(left, RECHECK))
            except TimeoutError:
                continue  # no notification: read the row again
            ended.clear()
    finally:
        notified.__exit__()


def check_not_own(agent_id: UUID) -> None:
    """Raise `InvalidOption` where a handler would wait for the end of the activity that it runs."""
    if current_attempt(agent_id):
        raise InvalidOption(
            f"Activity {agent_id} waits for its own result, which only exists when its handler has returned."
        )


def _read(agent_id: UUID) -> Activity:
    """Return the row of the activity. Raises for an activity whose end the caller cannot wait for."""
    activity = Activity.objects.using(database()).defer("context", "metadata").filter(agent_id=agent_id).first()
    if activity is None:
        raise ActivityNotFound(agent_id)
    if activity.status in FINISHED:
        return activity
    _check_no_deadlock(activity)
    if waits_for_commit(agent_id):
        raise TransactionManagementError(
            f"Activity {agent_id} was enqueued in a transaction that is not committed: no worker can see it before "
            "this wait is over. Wait after the transaction (ATOMIC_REQUESTS makes one of each view); in a TestCase, "
            "call django_agentexec.testing.drain() first."
        )
    return activity


def _check_no_deadlock(awaited: Activity) -> None:
    """Raise `InvalidOption` if the awaited activity is suspended until the calling handler's activity ends."""
    attempt = current_attempt()
    if attempt and awaited.is_suspended and _is_suspended_for(awaited.agent_id, attempt.agent_id):
        raise InvalidOption(
            f"Activity {attempt.agent_id} waits for the result of {awaited.agent_id}, which is suspended until its "
            f"children have ended, and {attempt.agent_id} is one of its descendants: neither would ever end. "
            "Return the data to the parent, and let the parent continue with it."
        )


def _is_suspended_for(ancestor: UUID, child: UUID) -> bool:
    """Return whether each parent on the way from `child` up to `ancestor` waits for its child on this way."""
    while True:
        parents = Activity.objects.using(database()).filter(children__agent_id=child)
        parent = parents.only("status", "blocking_child_id", "awaited_ids").first()
        if parent is None or not parent.is_suspended or str(child) not in (parent.awaited_ids or []):
            return False
        if parent.agent_id == ancestor:
            return True
        child = parent.agent_id


def _wake(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(ended.set)
    except RuntimeError:
        return  # the loop is closed, and its waiter is gone


def _timed_out(activity: Activity, timeout: float | timedelta | None) -> ResultTimeout:
    return ResultTimeout(
        _("Activity %(agent_id)s has not ended within %(timeout)s s; %(rest)s")
        % {"agent_id": activity.agent_id, "timeout": f"{validate_timeout(timeout):g}", "rest": _state_text(activity)},
        activity.agent_id,
    )


def _state_text(activity: Activity) -> str:
    """Return what the activity does after a wait for its end, with a hint."""
    if activity.status == Status.QUEUED:
        if activity.run_after is not None and activity.run_after > timezone.now():
            return _("it is queued and due at %(time)s.") % {"time": activity.run_after.isoformat(" ", "seconds")}
        return _("it is still queued; does a pool serve queue %(queue)r?") % {"queue": activity.queue}
    if not activity.is_suspended:
        return _("it is still running.")
    if activity.waiting_for in DECISIONS:
        is_question = activity.waiting_for == WaitingFor.ANSWER
        what = _("it waits for a person's answer") if is_question else _("it waits for a person's approval")
        return what + _(
            " (`agentexec approvals` lists them). A decision may take days: react to the signal approval_requested "
            "instead of waiting for the result."
        )
    return _("it is suspended and waits for %(reason)s.") % {"reason": reason_text(activity.waiting_for)}


class _Subscription:
    """The queue of the listening thread, and its listener once it is connected."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.listener: Listener | None = None


class _Notifications:
    """One thread and one connection for all waiters of this process; neither exists without a waiter.

    The thread connects, since a waiter has a time limit and a server that hangs may exceed it.
    """

    def __init__(self) -> None:
        self._reset()
        # A forked process has no listening thread, and must not use the parent's connection.
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._callbacks: dict[UUID, list[Callable[[], object]]] = defaultdict(list)
        self._subscription: _Subscription | None = None

    def add(self, waiter: watching) -> None:
        with self._changed:
            if waiter.is_over:
                return  # canceled before the wait had begun
            self._callbacks[waiter.agent_id].append(waiter.callback)
            if self._subscription is None or self._subscription.queue is not get_queue():
                subscription = _Subscription(get_queue())
                with suppress(RuntimeError):  # no thread available: the next waiter tries again
                    start_daemon_thread("agentexec-results", self._serve, subscription)
                    self._subscription = subscription
            elif self._subscription.listener is not None:
                self._notify(self._subscription.listener.watch, waiter.agent_id)

    def remove(self, waiter: watching) -> None:
        with self._changed:
            callbacks = self._callbacks.get(waiter.agent_id, [])
            if waiter.callback not in callbacks:
                return
            callbacks.remove(waiter.callback)
            if not callbacks:
                del self._callbacks[waiter.agent_id]
                if self._subscription is not None and self._subscription.listener is not None:
                    self._notify(self._subscription.listener.unwatch, waiter.agent_id)
            if not self._callbacks:
                self._changed.notify_all()

    def _notify(self, method: Callable[[UUID], object], agent_id: UUID) -> None:
        with suppress(QueueUnavailable):  # the thread notices it, too
            method(agent_id)

    def _serve(self, subscription: _Subscription) -> None:
        while self._is_wanted(subscription):
            try:
                self._listen(subscription)
            except QueueUnavailable:
                logger.info("The queue is unavailable; waiters poll the rows instead.")
            except Exception:  # raised by a custom backend or a callback
                logger.warning("Listening for results failed; waiters poll the rows instead.", exc_info=True)
            with self._changed:
                subscription.listener = None
                self._changed.wait_for(
                    lambda: not (self._subscription is subscription and self._callbacks), RETRY_PAUSE
                )

    def _listen(self, subscription: _Subscription) -> None:
        listener = subscription.queue.listen_finished()
        try:
            with self._changed:
                subscription.listener = listener
                for agent_id in self._callbacks:
                    listener.watch(agent_id)
                awaited_ids = list(self._callbacks)
            for agent_id in awaited_ids:
                self._call(agent_id)  # it may have ended before the listener was connected
            while self._is_wanted(subscription):
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

    def _is_wanted(self, subscription: _Subscription) -> bool:
        with self._changed:
            if self._subscription is not subscription:
                return False
            if not self._callbacks:
                self._subscription = None
            return bool(self._callbacks)


_notifications = _Notifications()


class watching:
    """A context manager that calls `callback`, in another thread, whenever the activity may have ended.

    While the queue is unavailable there are no calls: poll the row as well.
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
