"""The copy of the rows' limits in the queue, whose scripts apply them. The rows are the truth.

A change publishes them after its commit, a pool repeatedly, and a worker as soon as the queue's copy differs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from django.db import DatabaseError, InterfaceError, router, transaction
from django.db.models.signals import post_delete, post_save

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..models import Activity, ConcurrencyLimit, Pause
from ..queues import get_queue
from .rules import Rules, read_rules

logger = logging.getLogger(__name__)

MAX_TRIES = 10  # concurrent changes in a row


def publish(queues: Iterable[str]) -> Rules:
    """Copy the limits of the rows to these queues where they differ, and return them. Raises `QueueUnavailable`."""
    names = list(queues) if get_queue().supports_limits else []
    rules = read_rules()
    for queue in names:
        for _ in range(MAX_TRIES):
            # Read before the rows: if it has changed when it is replaced, another process may have read newer rows.
            present = get_queue().limits_revision(queue)
            rules = read_rules()
            if rules.revision(queue) == present or get_queue().set_limits(queue, rules.limits(queue), replaces=present):
                break
    return rules


def publish_everywhere() -> None:
    """Publish to the declared queues and to those of registered workers; errors are logged."""
    try:
        workers = get_queue().workers()
        publish(dict.fromkeys([*conf.QUEUES, *(name for worker in workers for name in worker.queues)]))
    except QueueUnavailable as error:
        logger.warning("%s The change of limits is committed; a pool passes it on later.", error)
    except (DatabaseError, InterfaceError):
        logger.exception("The change of limits is committed, but could not be read again; a pool passes it on later.")


def _publish_on_commit(**kwargs: object) -> None:
    using = router.db_for_write(Activity)
    transaction.on_commit(partial(publish_everywhere), using=using)


def install() -> None:
    """Publish after each change of the rows; called when the app is ready."""
    for signal in (post_save, post_delete):
        for model in (ConcurrencyLimit, Pause):
            signal.connect(_publish_on_commit, model, dispatch_uid="agentexec.concurrency")
