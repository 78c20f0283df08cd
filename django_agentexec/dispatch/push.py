"""Conversion of rows to queue messages, and their delivery: the only code that puts activities into a queue.

Enqueue and retry call it after the commit, the reconciler later for missing activities. The row holds everything that
the queue needs, so lock key, priority and due time are the same for all callers.

An outbox keeps messages that cannot be sent while the queue is unavailable, and sends them before later messages.
Without it, activities enqueued after an outage would overtake, within their lock key, activities that were enqueued
during the outage and wait for the reconciler. The reconciler also finds the messages of processes that have ended.
Messages of activities that have ended meanwhile are harmless: the worker that claims them reads it in the row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import connections, transaction
from django.utils import timezone

from ..activity.store import database
from ..conf import conf
from ..exceptions import QueueUnavailable
from ..forks import reset_after_fork
from ..models import Activity
from ..queues import Message, Queue, get_queue
from ..queues.limits import SEPARATOR, parse_limits

logger = logging.getLogger(__name__)

MAX_UNSENT = 10_000  # messages of one queue name, some megabytes; the reconciler sends further activities

_UnsentMessages = list[tuple[float, Message]]
"""Messages, each with the monotonic time at which it was to be sent."""


def push_on_commit(
    activities: Sequence[Activity], *, requeue_running: bool = False, by_creation_time: bool = False
) -> None:
    """Push rows into their queues after the commit of the transaction; a rollback pushes nothing."""
    pushes = partial(push_or_log, activities, requeue_running=requeue_running, by_creation_time=by_creation_time)
    transaction.on_commit(pushes, using=database())


def push_or_log(
    activities: Sequence[Activity], *, requeue_running: bool = False, by_creation_time: bool = False
) -> None:
    """Push committed rows into their queues, and log an error: the reconciler of a pool pushes them later."""
    with _errors_logged():
        push(activities, requeue_running=requeue_running, by_creation_time=by_creation_time)


def push(activities: Iterable[Activity], *, requeue_running: bool = False, by_creation_time: bool = False) -> int:
    """Push rows into their queues, and return the number of rows that were not there. Raises `QueueUnavailable`.

    With `requeue_running`, an activity that a worker is running runs again afterwards. `by_creation_time` inserts it
    into its partition by its creation time, instead of at the end.
    """
    by_queue: dict[str, list[Message]] = defaultdict(list)
    now = timezone.now()
    for activity in activities:
        by_queue[activity.queue].append(
            _message(activity, now, requeue_running=requeue_running, by_creation_time=by_creation_time)
        )
    added, failure = 0, None
    for queue, messages in by_queue.items():
        try:
            added += _send_or_store(get_queue(), queue, messages)
        except QueueUnavailable as error:  # its messages are stored in the outbox
            failure = failure or error
    if failure is not None:
        raise failure
    return added


def stop_on_commit(activities: Sequence[Activity]) -> None:
    """Remove ended rows from their queues after the commit of the transaction, and stop their handlers."""
    by_queue: dict[str, list[UUID]] = defaultdict(list)
    for activity in activities:
        # An activity that was never queued is in no queue, but clients may wait for its end.
        by_queue[activity.queue or "default"].append(activity.agent_id)
    for queue, agent_ids in by_queue.items():
        transaction.on_commit(partial(_stop_or_log, queue, agent_ids), using=database())


def waits_for_commit(agent_id: UUID) -> bool:
    """Return whether the push of this activity waits for the commit of the caller's transaction."""
    return any(_pushes(callback[1], agent_id) for callback in connections[database()].run_on_commit)


def _pushes(function: object, agent_id: UUID) -> bool:
    if not (isinstance(function, partial) and function.func is push_or_log):
        return False
    return any(activity.agent_id == agent_id for activity in function.args[0])


def _stop_or_log(queue: str, agent_ids: Sequence[UUID]) -> None:
    with _errors_logged():
        get_queue().cancel(queue, agent_ids)


@contextmanager
def _errors_logged() -> Iterator[None]:
    """Log an error of the block: the row is committed, so the reconciler finds it later.

    The error must neither look like a failed enqueue nor prevent the caller's other callbacks.
    """
    try:
        yield
    except QueueUnavailable as error:
        logger.warning("%s The change is committed; the reconciler of a pool pushes it to the queue later.", error)
    except Exception:  # for example the replies MISCONF and WRONGTYPE
        logger.exception("The queue refused a committed change; the reconciler of a pool tries again later.")


def partition_of(activity: Activity) -> str:
    """Return the queue's partition of a row: that of its lock key, else that of its fair key, else its own."""
    if activity.lock_key:
        return f"k:{activity.lock_key}"
    return (activity.fairness or "").partition(SEPARATOR)[0] or f"i:{activity.agent_id}"


def _message(activity: Activity, now: datetime, *, requeue_running: bool, by_creation_time: bool) -> Message:
    # Resumed activities run before unstarted activities of the same priority.
    is_resumed = activity.blocking_child_id is not None
    # Both times of the row come from the clock of its last writer. If that clock is ahead of this machine's clock, the
    # remaining delay still does not exceed the requested delay.
    delay = (activity.run_after - max(now, activity.updated_at)).total_seconds() if activity.run_after else 0.0
    return Message(
        agent_id=activity.agent_id,
        partition=partition_of(activity),
        priority=int(activity.priority) - is_resumed,
        delay=max(0.0, delay),
        sequence=int(activity.created_at.timestamp() * 1_000_000) if by_creation_time else 0,
        crashes=activity.crashes,
        again=requeue_running,
        fence=activity.fence,
        limits=parse_limits(activity.fairness) if activity.fairness else (),
    )


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


def _send_or_store(backend: Queue, queue: str, messages: Sequence[Message]) -> int:
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
