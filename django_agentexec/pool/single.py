"""Runs one attempt of one activity in the calling process, without a pool.

A reconciler runs beside it, as in a pool: without any pool, nothing else restores a queue that has lost its data.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from ..activity.store import database
from ..dispatch.push import push
from ..exceptions import ActivityNotFound, InvalidTransition
from ..models import FINISHED, Activity
from ..queues import get_queue
from ..worker.entrypoint import loop_factory
from ..worker.options import WorkerOptions
from ..worker.worker import Worker, create_worker
from .reconciler import Reconciler

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 1.0  # seconds between two reads of the row while it cannot be claimed
TRY_INTERVAL = 0.01  # seconds between two looks whether the first claim was tried, after the end of the timeout


def run_one(
    agent_id: UUID,
    timeout: float | None = None,
    *,
    on_signal: Callable[[signal.Signals], None] = lambda number: None,
    on_abandoned: Callable[[], None] = lambda: None,
) -> Activity | None:
    """Claim an activity, run one attempt of it, and return its row, or None if it could not be claimed in time.

    It is claimed like any other: after those before it with the same lock key or fair key, under limits and pauses, and
    not while another worker runs it. `timeout` is the number of seconds to wait for that; 0 tries once, None waits
    without a limit. SIGTERM drains, as in a pool; Ctrl-C (SIGINT) returns the activity to the queue at once. Both are
    passed to `on_signal`. Call it in the main thread, outside of an event loop.

    A handler that ignores its cancellation (sync code that sleeps) is abandoned after some seconds, and `on_abandoned`
    is called. It runs as long as the process, which must therefore end: another worker may run the activity already.

    The row is `complete`, `error` or `canceled`; `queued` if a retry is left; or `running` if it waits for children or
    a decision, with the reason in `waiting_for`. An activity that ends elsewhere during the wait is returned, too.
    Raises `ActivityNotFound`, `InvalidTransition` if the activity has ended, waits or is in no queue, and
    `QueueUnavailable`.
    """
    row = _row(agent_id)
    if row.status in FINISHED:
        raise InvalidTransition(f"Activity {agent_id} has ended ({row.status}); retry it to run it again.")
    if row.is_suspended:
        raise InvalidTransition(f"Activity {agent_id} waits ({row.waiting_for}), and is not in the queue.")
    if not row.queue:
        raise InvalidTransition(f"Activity {agent_id} is in no queue: the code that has created it drives it.")
    if get_queue().missing(row.queue, [agent_id]):
        push([row], by_creation_time=True)
    options = WorkerOptions((row.queue,), concurrency=1, only=agent_id).named(1)
    reconciler = Reconciler(options.name, options.queues)
    reconciler.start()
    runner = asyncio.Runner(loop_factory=loop_factory())
    has_abandoned = False
    try:
        work = _work(agent_id, options, timeout, reconciler.request_recovery, on_signal)
        has_claimed, has_abandoned = runner.run(work)
    finally:
        reconciler.stop()
        if has_abandoned:  # closing the loop would wait for the handler
            on_abandoned()
        else:
            runner.close()
    after = _row(agent_id)
    # A claim that limits or pauses hold back starts no attempt.
    has_started = has_claimed and after.fence != row.fence
    return after if has_started or after.status in FINISHED else None


def _row(agent_id: UUID) -> Activity:
    row = Activity.objects.using(database()).filter(agent_id=agent_id).first()
    if row is None:
        raise ActivityNotFound(agent_id)
    return row


async def _work(
    agent_id: UUID,
    options: WorkerOptions,
    patience: float | None,
    recover: Callable[[], None],
    on_signal: Callable[[signal.Signals], None],
) -> tuple[bool, bool]:
    """Return whether the activity was claimed, and whether its handler was abandoned."""

    def stop_waiting() -> None:
        if not worker.reached_limit:
            worker.drain()

    def handle(number: signal.Signals, react: Callable[[], None]) -> None:
        on_signal(number)
        react()

    loop = asyncio.get_running_loop()
    worker = await create_worker(options, beat=lambda info: None, needs_recovery=recover)
    loop.add_signal_handler(signal.SIGTERM, handle, signal.SIGTERM, worker.drain)
    loop.add_signal_handler(signal.SIGINT, handle, signal.SIGINT, worker.end_now)
    watches = [loop.create_task(_until_ended(agent_id, worker, stop_waiting))]
    if patience is not None:
        watches.append(loop.create_task(_until_timeout(patience, worker, stop_waiting)))
    try:
        await worker.run()
    finally:
        for watch in watches:
            watch.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):  # from here on they end the process
            loop.remove_signal_handler(number)
    return worker.reached_limit, worker.has_abandoned


async def _until_timeout(patience: float, worker: Worker, stop_waiting: Callable[[], None]) -> None:
    """Stop waiting after `patience` seconds, but not before the first claim was tried."""
    await asyncio.sleep(patience)
    while not worker.has_tried:  # noqa: ASYNC110  # a thread of the claimer sets it
        await asyncio.sleep(TRY_INTERVAL)
    stop_waiting()


async def _until_ended(agent_id: UUID, worker: Worker, stop_waiting: Callable[[], None]) -> None:
    """Stop waiting when the row has ended, since another worker has run it, or was canceled or deleted."""
    while not worker.reached_limit:
        await asyncio.sleep(LOOK_INTERVAL)
        try:
            has_ended = (await asyncio.to_thread(_row, agent_id)).status in FINISHED
        except ActivityNotFound:
            has_ended = True
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Could not read whether activity %s has ended: %s", agent_id, error)
            continue
        if has_ended:
            stop_waiting()
            return
