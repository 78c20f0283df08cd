"""From rows to queue messages: the one way by which an activity gets into a queue.

Called after the commit by enqueue and retry, and by the reconciler. All that the queue needs is on the
row, so every way carries lock key, priority and due time.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from uuid import UUID

from django.db import connections, transaction
from django.utils import timezone

from ..activity.store import database
from ..exceptions import QueueUnavailable
from ..models import Activity
from ..queues import Message, get_queue
from .outbox import send_or_keep

logger = logging.getLogger(__name__)


def push_on_commit(activities: Sequence[Activity], *, again: bool = False, keep_place: bool = False) -> None:
    """Push rows into their queues once the transaction is committed; a rollback pushes nothing."""
    _on_commit(partial(push, activities, again=again, keep_place=keep_place))


def push(activities: Iterable[Activity], *, again: bool = False, keep_place: bool = False) -> int:
    """Push rows into their queues, and return how many were not there yet. Raises `QueueUnavailable`.

    `again` makes an activity run once more that is being run right now. `keep_place` puts it where its
    creation time belongs, instead of at the end of its partition.
    """
    by_queue: dict[str, list[Message]] = defaultdict(list)
    for activity in activities:
        by_queue[activity.queue].append(_message(activity, again=again, keep_place=keep_place))
    added, failure = 0, None
    for queue, messages in by_queue.items():
        try:
            added += send_or_keep(get_queue(), queue, messages)
        except QueueUnavailable as error:  # each queue keeps its own for later
            failure = failure or error
    if failure is not None:
        raise failure
    return added


def stop_on_commit(activities: Sequence[Activity]) -> None:
    """Take ended rows out of their queues once the transaction is committed, and stop who runs them."""
    by_queue: dict[str, list[UUID]] = defaultdict(list)
    for activity in activities:
        # One that was never queued has no queue to leave, but may be awaited.
        by_queue[activity.queue or "default"].append(activity.agent_id)
    for queue, agent_ids in by_queue.items():
        _on_commit(partial(_stop, queue, agent_ids))


def waits_for_commit(agent_id: UUID) -> bool:
    """Whether the push of this activity waits for the end of the caller's own transaction."""
    return any(_pushes(callback[1], agent_id) for callback in connections[database()].run_on_commit)


def _pushes(function: object, agent_id: UUID) -> bool:
    if not (isinstance(function, partial) and function.func is _or_log):
        return False
    (wanted,) = function.args
    return wanted.func is push and any(activity.agent_id == agent_id for activity in wanted.args[0])


def _stop(queue: str, agent_ids: Sequence[UUID]) -> None:
    get_queue().cancel(queue, agent_ids)


def _on_commit(function: Callable[[], object]) -> None:
    transaction.on_commit(partial(_or_log, function), using=database())


def _or_log(function: Callable[[], object]) -> None:
    """Call `function`; what fails costs time only, since the row is committed and will be found.

    It must not look like a failed enqueue, nor keep the caller's other callbacks from running.
    """
    try:
        function()
    except QueueUnavailable as error:
        logger.warning("%s The change is committed; the reconciler of a pool will pass it on.", error)
    except Exception:  # for example an answer such as MISCONF or WRONGTYPE
        logger.exception("The queue refused a committed change; the reconciler of a pool will try again.")


def _message(activity: Activity, *, again: bool, keep_place: bool) -> Message:
    # Who was woken goes before those of its priority that have not begun: what is begun gets done.
    goes_on = activity.blocking_child_id is not None
    # Both times of the row are by the clock of who wrote it last: where that is ahead of ours, what is left is no more
    # than what was asked for.
    now = max(timezone.now(), activity.updated_at)
    delay = (activity.run_after - now).total_seconds() if activity.run_after else 0.0
    return Message(
        agent_id=activity.agent_id,
        partition=activity.partition,
        priority=int(activity.priority) - goes_on,
        delay=max(0.0, delay),
        sequence=int(activity.created_at.timestamp() * 1_000_000) if keep_place else 0,
        crashes=activity.crashes,
        again=again,
        fence=activity.fence,
    )
