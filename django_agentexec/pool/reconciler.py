"""The reconciler: finds activities that the database knows and the queue does not, and pushes them again.

That heals what lies between the two stores: a process that died between commit and push, a Redis that was
flushed, restored from an old snapshot, or away. It also finds what is still being run though its row has ended, since
the queue could not be told, or has forgotten. Of all pools, one at a time does each.
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
from ..conf import conf
from ..dispatch.push import push
from ..exceptions import QueueUnavailable
from ..models import Activity
from ..monitoring import record_reconciliation
from ..queues import get_queue

logger = logging.getLogger(__name__)

BATCH = 1_000  # rows per query and ids per question to the queue
# Rows younger than this may be on their way into the queue right now.
SETTLING = timedelta(seconds=5)


REFILL_LEASE = 10.0  # seconds without a sign after which another pool may lead a refill
REFILL_LOOK = 1.0  # seconds between two looks of a pool that does not lead
REFILL_RENEWAL = 2.0  # seconds between two renewals of that


def reconcile(*, settling: timedelta = SETTLING, on_batch: Callable[[], None] = lambda: None) -> int:
    """Push every active row that is missing in its queue, in the order of creation; return how many.

    `on_batch` is called before each batch.

    Also does what the end of an activity with ties should have led to, where a crash came in between. Two
    queries and one round trip per 1,000 active rows and queue, and a few queries for ties.
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
    while ids := dict(candidates.filter(agent_id__gt=after).values_list("agent_id", "queue")[:BATCH]):
        on_batch()
        by_queue: dict[str, list[UUID]] = defaultdict(list)
        for agent_id, queue in ids.items():
            by_queue[queue].append(agent_id)
        missing = [i for queue, wanted in by_queue.items() for i in get_queue().missing(queue, wanted)]
        if missing:
            # Read again: some may have ended between the first look and the queue's answer.
            pushed += push(candidates.filter(agent_id__in=missing).defer("context", "result"), keep_place=True)
        after = max(ids)
    return pushed


def stop_ended(queue: str, *, settling: timedelta = SETTLING) -> int:
    """Tell who still runs an activity whose row has ended to stop; return how many had not been told.

    Looks at what is leased, of which there is as much as there are busy slots, however long ago its row has ended:
    a round trip per page, and one query by primary key per 1,000 claims.
    """
    claims = get_queue().list_leases(queue)
    ids, ended = list(claims), list[UUID]()
    # Left out is what has just ended: most likely its acknowledgment is under way. Not by `updated_at`, which moves
    # on, since tokens are counted after a cancel, too.
    rows = Activity.objects.using(database()).finished().filter(*_settled(settling, "finished_at"))
    for start in range(0, len(ids), BATCH):
        ended += rows.filter(agent_id__in=ids[start : start + BATCH]).values_list("agent_id", flat=True)
    # By fence: one that was retried meanwhile, and is claimed anew, goes on.
    return get_queue().stop(queue, {agent_id: claims[agent_id] for agent_id in ended}) if ended else 0


def _settled(settling: timedelta, field: str = "updated_at") -> list[Q]:
    """Return the condition that a row was not written just now.

    Who wrote it may have another clock than this machine. So a time that lies ahead tells nothing, least of all that
    the row has to wait for it; pushing what is on its way does no harm.
    """
    if not settling:
        return []
    now = timezone.now()
    return [Q(**{f"{field}__lte": now - settling}) | Q(**{f"{field}__gt": now + settling})]


class Reconciler:
    """Compares database and queues now and then, in a thread of the pool; at once when a queue has lost its data."""

    def __init__(self, holder: str, queues: Sequence[str]) -> None:
        self._holder = holder
        self._queues = queues
        self._stopping = threading.Event()
        self._refill = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-reconciler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def refill(self) -> None:
        """Reconcile now, unless another pool does: the queues give out nothing before. Callable from any thread."""
        self._refill.set()
        self._wake.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._run_once()
            self._wake.wait(conf.RECONCILE_INTERVAL)
            self._wake.clear()

    def _run_once(self) -> None:
        try:
            if self._refill.is_set():
                self._refill.clear()
                if not self._refill_led():
                    self._stopping.wait(random.uniform(REFILL_LOOK / 2, REFILL_LOOK))
                    return
            elif self._leads("reconciler"):
                self._report(reconcile())
            for name in self._queues:  # its own: whoever runs something has a pool that serves that queue
                if self._leads(f"stops:{name}") and (stopped := stop_ended(name)):
                    logger.warning("%d running activities had ended; their workers are told to stop.", stopped)
        except (QueueUnavailable, DatabaseError, InterfaceError) as error:
            logger.warning("Database and queue could not be compared: %s", error)
            record_reconciliation(error)
        except Exception as error:  # without this thread, what the queue loses would stay lost
            logger.exception("Database and queue could not be compared.")
            record_reconciliation(error)
        finally:
            connections.close_all()

    def _refill_led(self) -> bool:
        """Refill the queues for which this pool leads; False if there are none.

        If all pools did, each would ask the server for every active row.

        Workers of the others report the loss again until it is healed, so that another pool takes over from one that
        has died.
        """
        tokens = {name: get_queue().begin_refill(name) for name in self._queues}
        duties = {name: f"refill:{name}:{token}" for name, token in tokens.items() if token}
        led = [name for name, duty in duties.items() if self._leads_refill(duty)]
        if not led:
            return False
        renewed = time.monotonic()

        def renew() -> None:
            nonlocal renewed
            if time.monotonic() - renewed > REFILL_RENEWAL:
                renewed = time.monotonic()
                for name in led:
                    self._leads_refill(duties[name])

        self._report(reconcile(settling=timedelta(), on_batch=renew))
        for name in led:
            get_queue().end_refill(name, tokens[name])
        return True

    def _leads_refill(self, duty: str) -> bool:
        return get_queue().try_acquire_leadership(duty, self._holder, REFILL_LEASE)

    def _leads(self, duty: str) -> bool:
        # A little longer than until the next look, so that the duty stays where it is.
        return get_queue().try_acquire_leadership(duty, self._holder, 1.5 * conf.RECONCILE_INTERVAL)

    def _report(self, pushed: int) -> None:
        record_reconciliation()
        if pushed:
            logger.warning("%d activities were missing in the queue; they are back.", pushed)
