"""The reconciler: pushes active rows that are missing in the queue, and stops handlers whose row has ended.

It repairs differences between the two stores: a process died between commit and push, or Redis was flushed, restored
from an old snapshot, or unavailable. It also finds activities that still run although their row has ended, because
the queue was unavailable or lost the request to stop. At any time, a single pool does each of these tasks.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections
from django.db.models import Q
from django.utils import timezone

from ..activity.completion_hooks import repair_missed
from ..activity.store import database
from ..background import start_daemon_thread
from ..concurrency.publication import publish
from ..conf import conf
from ..dispatch.push import push
from ..exceptions import QueueUnavailable
from ..models import Activity
from ..monitoring import record_reconciliation
from ..queues import get_queue

logger = logging.getLogger(__name__)

MAX_BATCH = 1_000  # rows per query, and ids per call of the queue
# The push of a younger row may be in progress.
SETTLING = timedelta(seconds=5)


RECOVERY_LEASE = 10.0  # seconds without a renewal after which another pool may lead a recovery
RECOVERY_POLL = 1.0  # maximum seconds between two polls of a pool that does not lead
RECOVERY_RENEWAL = 2.0  # seconds between two renewals of the lead


def reconcile(*, settling: timedelta = SETTLING, on_batch: Callable[[], None] = lambda: None) -> int:
    """Push every active row that is missing in its queue, in the order of creation; return the number of rows.

    `on_batch` is called before each batch.

    Also runs completion hooks that a crash prevented. Two queries and one round trip per 1,000 active rows and queue,
    and a few queries for the hooks.
    """
    repair_missed()
    pushed, after = 0, UUID(int=0)
    candidates = (
        Activity.objects.using(database())
        .active()
        .exclude_suspended()
        .managed()
        .filter(*_settled(settling))
        .order_by("agent_id")
    )
    while ids := dict(candidates.filter(agent_id__gt=after).values_list("agent_id", "queue")[:MAX_BATCH]):
        on_batch()
        by_queue: dict[str, list[UUID]] = defaultdict(list)
        for agent_id, queue in ids.items():
            by_queue[queue].append(agent_id)
        missing = [i for queue, wanted in by_queue.items() for i in get_queue().missing(queue, wanted)]
        if missing:
            # Read again: some may have ended between the first query and the reply of the queue.
            pushed += push(candidates.filter(agent_id__in=missing).defer("context", "result"), by_creation_time=True)
        after = max(ids)
    return pushed


def stop_ended(queue: str, *, settling: timedelta = SETTLING) -> int:
    """Request the stop of claimed activities whose row has ended; return the number of new requests.

    Reads the leases, of which there are as many as busy slots: one round trip per page, and one query by primary key
    per 1,000 claims. The time at which a row ended is irrelevant.
    """
    claims = get_queue().list_leases(queue)
    ids, ended = list(claims), list[UUID]()
    # Rows that ended just now are skipped, since their acknowledgment is probably in progress. `updated_at` is not
    # suitable, since it also changes after a cancel, when tokens are counted.
    rows = Activity.objects.using(database()).finished().filter(*_settled(settling, "finished_at"))
    for start in range(0, len(ids), MAX_BATCH):
        ended += rows.filter(agent_id__in=ids[start : start + MAX_BATCH]).values_list("agent_id", flat=True)
    # By fence: an activity that was retried and claimed again meanwhile is not stopped.
    return get_queue().request_stop(queue, {agent_id: claims[agent_id] for agent_id in ended}) if ended else 0


def _settled(settling: timedelta, field: str = "updated_at") -> list[Q]:
    """Return the condition that a row was not written just now.

    The clock of the writer may differ from the clock of this machine. A time in the future is therefore ignored, and
    the row does not wait for it: pushing an activity twice does no harm.
    """
    if not settling:
        return []
    now = timezone.now()
    return [Q(**{f"{field}__lte": now - settling}) | Q(**{f"{field}__gt": now + settling})]


class Reconciler:
    """A thread of the pool that compares database and queues periodically, and at once after a loss of data."""

    def __init__(self, holder: str, queues: Sequence[str]) -> None:
        self._holder = holder
        self._queues = queues
        self._stopping = threading.Event()
        self._recovery_requested = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_daemon_thread("agentexec-reconciler", self._run)

    def request_recovery(self) -> None:
        """Reconcile at once unless another pool does: the queues issue no claims before. Callable from any thread."""
        self._recovery_requested.set()
        self._wake.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._run_once()
            self._wake.wait(conf.RECONCILE_INTERVAL)
            self._wake.clear()

    def _run_once(self) -> None:
        try:
            if self._recovery_requested.is_set():
                self._recovery_requested.clear()
                if not self._recover_led_queues():
                    self._stopping.wait(random.uniform(RECOVERY_POLL / 2, RECOVERY_POLL))
                    return
            elif self._leads("reconciler"):
                self._report(reconcile())
            for (
                name
            ) in self._queues:  # own queues suffice: every running activity belongs to a queue that a pool serves
                if not self._leads(f"stops:{name}"):
                    continue
                publish([name])
                if stopped := stop_ended(name):
                    logger.warning("Stopping %d running activities whose rows have ended.", stopped)
        except (QueueUnavailable, DatabaseError, InterfaceError) as error:
            logger.warning("Database and queue could not be compared: %s", error)
            record_reconciliation(error)
        except Exception as error:  # without this thread, what the queue loses would stay lost
            logger.exception("Database and queue could not be compared.")
            record_reconciliation(error)
        finally:
            connections.close_all()

    def _recover_led_queues(self) -> bool:
        """Restore the queues whose recovery this pool leads; return False if there are none.

        A single leader avoids that every pool compares every active row with the queue. Workers report the loss until
        it is repaired, so that another pool takes over if the leader dies.
        """
        tokens = {name: get_queue().begin_recovery(name) for name in self._queues}
        roles = {name: f"refill:{name}:{token}" for name, token in tokens.items() if token}
        led = [name for name, role in roles.items() if self._leads_recovery(role)]
        if not led:
            return False
        renewed = time.monotonic()

        def renew() -> None:
            nonlocal renewed
            if time.monotonic() - renewed > RECOVERY_RENEWAL:
                renewed = time.monotonic()
                for name in led:
                    self._leads_recovery(roles[name])

        self._report(reconcile(settling=timedelta(), on_batch=renew))
        publish(led)  # before the first claim
        for name in led:
            get_queue().end_recovery(name, tokens[name])
        return True

    def _leads_recovery(self, role: str) -> bool:
        return get_queue().try_acquire_leadership(role, self._holder, RECOVERY_LEASE)

    def _leads(self, role: str) -> bool:
        # A little longer than until the next comparison, so that the lead stays with this pool.
        return get_queue().try_acquire_leadership(role, self._holder, 1.5 * conf.RECONCILE_INTERVAL)

    def _report(self, pushed: int) -> None:
        record_reconciliation()
        if pushed:
            logger.warning("Pushed activities that were missing in the queue: %d.", pushed)
