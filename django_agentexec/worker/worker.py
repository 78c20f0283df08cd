"""One worker process: claims, runs up to `concurrency` activities on one event loop, acknowledges.

The event loop runs handlers and nothing else; Redis, database and leases have a thread each:

    dispatcher --claim--> recorder (Start) --row--> loop (handler) --outcome--> recorder --row--> dispatcher
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from uuid import UUID

from ..activity.deferral import Defer
from ..activity.store import database
from ..activity.suspension import Suspend
from ..activity.transitions import Fail, GiveUp, OwnedOperation, Release, Start
from ..conf import conf
from ..exceptions import ActivityNotFound, InvalidTransition, StaleAttempt
from ..models import Activity, Status
from ..queues import Claim, DatabaseState, Outcome, Queue, WorkerInfo
from ..signals import worker_started, worker_stopped
from ..validation import one_line
from .claimer import Claimer
from .committer import Committer
from .executor import Execution, Stop
from .heartbeat import Heartbeat
from .invoker import WorkerInvoker
from .lifecycle_log import log_finished, log_ready, log_started
from .options import WorkerOptions
from .threads import ConnectionClosingExecutor

logger = logging.getLogger(__name__)

CANCEL_TIMEOUT = 2.0  # seconds that stopped handlers get for their clean-up before the process leaves them
FLUSH_TIMEOUT = 8.0  # seconds for the last writes, and for those who hear that the worker stops, together
RELEASE_TIMEOUT = 3.0  # seconds for giving back what is left then; what takes longer is the pool's to give back
SHUTDOWN_TIMEOUT = CANCEL_TIMEOUT + FLUSH_TIMEOUT + RELEASE_TIMEOUT
"""Seconds that a worker takes to end after the grace period, at most, whether Redis answers or not."""
DATABASE_REFUSED_DELAY = 30.0  # seconds until an attempt is repeated whose end the database did not take


class Worker:
    """What one worker process does. `await run()` returns when it has drained.

    `beat` is called once a second from the event loop: who misses it knows that the loop is stuck. `needs_refill`
    is called, from another thread, while the queue has lost its data.
    """

    def __init__(
        self,
        queue: Queue,
        options: WorkerOptions,
        *,
        beat: Callable[[WorkerInfo], None],
        needs_refill: Callable[[], None],
    ) -> None:
        self._options = options
        self._beat = beat
        self._executions: dict[UUID, Execution] = {}
        self._startable: deque[tuple[Claim, Activity]] = deque()
        self._launching = False
        self._committer = Committer()
        self._threads = ConnectionClosingExecutor(options.concurrency, thread_name_prefix="agentexec-sync")
        self._invoker = WorkerInvoker(self._threads)
        # What still runs when this process leaves: it ends with the process, so its claims are given back last.
        self._left: dict[UUID, Execution] = {}
        self._returns_left = False
        self._last_acks: deque[tuple[Claim, Outcome]] = deque()
        self._stop_now = asyncio.Event()
        self._ended = asyncio.Event()
        self._draining = False
        self._too_large = False
        self._info = WorkerInfo(
            id=options.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=list(options.queues),
            concurrency=options.concurrency,
            quarantine=options.quarantine,
            started=time.time(),
        )
        self._claimer = Claimer(
            queue,
            options.queues,
            options.name,
            options.concurrency,
            on_claim=self._claimed,
            on_end=partial(self._from_thread, self._ended.set),
            quarantine=options.quarantine,
            burst=options.burst,
            max_claims=options.max_tasks,
            rows=_active_rows(),
            on_needs_refill=needs_refill,
        )
        self._lease = Heartbeat(
            queue,
            self._info,
            self._claimer.held,
            self._claimer.giving_back,
            on_lost=partial(self._stop_from_thread, Stop.LOST),
            on_canceled=partial(self._stop_from_thread, Stop.CANCELED),
            on_beat=self._count_running,
        )

    async def run(self) -> None:
        """Work until drained: after `drain()`, the end of a burst, or the limit of tasks or memory."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(self._threads)
        worker_started.send_robust(Worker, worker=self._options.name)
        self._committer.start()
        self._claimer.start()
        self._lease.start()
        log_ready(self._options)
        beats = asyncio.ensure_future(self._beat_each_second())
        try:
            await self._until_drained()
        finally:
            await self._shut_down()
            beats.cancel()  # last: what was left may lose its lease still

    def drain(self) -> None:
        """Claim nothing more, and end when all is done or the grace period is over. Callable in the loop.

        May be called again: a signal to the whole process group arrives twice, once from the pool.
        """
        if self._draining:
            return
        self._draining = True
        self._claimer.stop()
        self._loop.call_later(conf.GRACE_PERIOD, self._stop_now.set)

    def end_now(self) -> None:
        """Claim nothing more, and give what runs back to the queue at once. Callable in the loop."""
        self.drain()
        self._stop_now.set()

    @property
    def reached_limit(self) -> bool:
        """Whether it ended because of its limit of tasks or memory, and is to be replaced."""
        return self._too_large or self._claimer.reached_limit

    async def _until_drained(self) -> None:
        ended = asyncio.ensure_future(self._ended.wait())
        stop = asyncio.ensure_future(self._stop_now.wait())
        await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if ended.done():
            return
        logger.info("Giving %d running activities back to the queue.", len(self._executions))
        self._stop(list(self._executions), Stop.SHUTDOWN)
        await asyncio.wait({ended}, timeout=CANCEL_TIMEOUT)
        # What does not end by itself is left: its thread dies with the process, its late writes are refused.
        self._left = dict(self._executions)
        for execution in list(self._executions.values()):
            self._end(execution, execution.release())

    async def _shut_down(self) -> None:
        # In threads of its own: all of the loop's may be taken by handlers that do not end. And in one each, since
        # what Redis or somebody's server keeps waiting must not keep the other step from being tried.
        threads = ConnectionClosingExecutor(2, thread_name_prefix="agentexec-end")
        for step, limit in ((self._flush, FLUSH_TIMEOUT), (self._give_back_the_rest, RELEASE_TIMEOUT)):
            call = self._loop.run_in_executor(threads, step)
            await asyncio.wait({call}, timeout=limit)
            if call.done():
                call.result()
            else:
                logger.warning("The worker ends without waiting any longer for what keeps it (%s).", step.__name__)

    def _flush(self) -> None:
        # What has ended by itself may be on its way through recorder and loop still.
        until = time.monotonic() + CANCEL_TIMEOUT
        while time.monotonic() < until and not self._left.keys() >= set(self._claimer.held):
            time.sleep(0.02)
        self._committer.stop(CANCEL_TIMEOUT)
        worker_stopped.send_robust(Worker, worker=self._options.name)

    def _give_back_the_rest(self) -> None:
        """Give back what is left, as late as can be: who gets it next must not run beside it."""
        self._lease.stop()
        self._lease.deregister_worker()
        self._returns_left = True
        self._return_left()
        self._claimer.join(CANCEL_TIMEOUT)

    def _return_left(self) -> None:
        with suppress(IndexError):
            while True:
                self._claimer.ack(*self._last_acks.popleft())

    def _ack(self, claim: Claim, outcome: Outcome, delay: float = 0.0) -> None:
        """Give a claim back to the queue: now, or in the end, if its handler ends with the process only."""
        if claim.agent_id not in self._left:
            self._claimer.ack(claim, outcome, delay)
            return
        self._last_acks.append((claim, outcome))
        if self._returns_left:  # looked at afterwards: of two threads, one gives it back
            self._return_left()

    # From claim to handler

    def _claimed(self, claim: Claim) -> None:
        """Note the start in the database; in the dispatcher's thread."""
        if self._stop_now.is_set():
            self._ack(claim, Outcome.RELEASE)  # the recorder may have ended
            return
        start = Start(agent_id=claim.agent_id, fence=claim.fence, worker=self._options.name, crashes=claim.crashes)
        if claim.crashes >= conf.MAX_CRASHES or claim.expired_leases >= conf.MAX_EXPIRED_LEASES:
            start = GiveUp(
                agent_id=claim.agent_id,
                fence=claim.fence,
                worker=self._options.name,
                crashes=claim.crashes,
                expired_leases=claim.expired_leases,
            )
        self._committer.tell(start, partial(self._started, claim), goes_first=True)

    def _started(self, claim: Claim, written: Activity | Exception) -> None:
        """Run the handler, unless the row says that there is nothing to run; in the recorder's thread."""
        if isinstance(written, Activity):
            if written.status == Status.RUNNING:
                log_started(written)
                self._startable.append((claim, written))
                if not self._launching:
                    # The starts of one commit reach the loop by one call: each costs it a system call.
                    self._launching = True
                    self._from_thread(self._launch_all)
            else:
                self._ack(claim, Outcome.DEAD)  # given up after too many crashes
        elif isinstance(written, (InvalidTransition, ActivityNotFound)):
            self._ack(claim, self._refused(written))  # canceled, finished or deleted meanwhile
        else:
            logger.error("Activity %s could not be started: %s", claim.agent_id, one_line(written))
            self._give_back(claim)

    def _launch_all(self) -> None:
        self._launching = False  # first: what is appended from here on calls again
        while self._startable:
            self._launch(*self._startable.popleft())

    def _launch(self, claim: Claim, activity: Activity) -> None:
        execution = Execution(claim, activity, self._committer.submit, self._invoker)
        self._executions[claim.agent_id] = execution
        if self._stop_now.is_set():
            execution.stop(Stop.SHUTDOWN)
        elif activity.lock_key and self._lease.is_overdue(claim.agent_id):
            execution.stop(Stop.LOST)  # this process has slept since it noted the start
        # The loop holds tasks weakly; `_executions` keeps this one alive.
        execution.task = self._loop.create_task(self._execute(execution))

    async def _execute(self, execution: Execution) -> None:
        try:
            outcome = await execution.run()
        except BaseException as error:  # a defect of ours: it must not keep the activity's slot and lease
            logger.exception("Activity %s ended in an unexpected way.", execution.claim.agent_id)
            outcome = Fail(agent_id=execution.claim.agent_id, fence=execution.claim.fence, error=one_line(error))
        self._end(execution, outcome)

    # From outcome to acknowledgment

    def _end(self, execution: Execution, outcome: OwnedOperation | None) -> None:
        """Hand in the outcome, once per execution."""
        if self._executions.pop(execution.claim.agent_id, None) is not execution:
            return
        self._claimer.free(execution.claim)
        if outcome is None:
            log_finished(execution, None, None)
            # What counts as lost only because the queue was away may still be ours: it must run again.
            self._ack(execution.claim, Outcome.RELEASE if execution.is_lost else Outcome.DONE)
        else:
            self._committer.tell(outcome, partial(self._ended_in_row, execution, outcome))

    def _ended_in_row(self, execution: Execution, outcome: OwnedOperation, written: Activity | Exception) -> None:
        """Acknowledge what the row says; in the recorder's thread."""
        if isinstance(written, Activity):
            log_finished(execution, outcome, written)
            self._acknowledge(execution.claim, outcome, written)
        elif isinstance(written, (InvalidTransition, ActivityNotFound)):
            log_finished(execution, outcome, None)
            self._ack(execution.claim, self._refused(written))  # ended by somebody else meanwhile
        elif isinstance(outcome, Fail) or self._draining:
            logger.error("The end of activity %s could not be written: %s", outcome.agent_id, one_line(written))
            self._give_back(execution.claim)
        else:
            # The database refuses this result for good, for example for a character it cannot store.
            refused = Fail(agent_id=outcome.agent_id, fence=outcome.fence, error=one_line(written))
            self._committer.tell(refused, partial(self._ended_in_row, execution, refused))

    def _refused(self, error: Exception) -> Outcome:
        """Return what to say of a claim whose write was refused: that there is nothing more to do.

        Not while the worker leaves: its recorder may have ended, which also refuses. Then the next one asks the row.
        """
        return Outcome.RELEASE if self._draining and isinstance(error, StaleAttempt) else Outcome.DONE

    def _give_back(self, claim: Claim) -> None:
        """Let an activity run again whose write the database did not take.

        A worker that is ending may only have been cut off from the database: another one begins at once, and
        nobody of the same lock key may overtake.
        """
        if self._draining:
            self._ack(claim, Outcome.RELEASE)
        else:
            self._ack(claim, Outcome.RETRY, DATABASE_REFUSED_DELAY)

    def _acknowledge(self, claim: Claim, outcome: OwnedOperation, activity: Activity) -> None:
        if activity.status == Status.QUEUED and isinstance(outcome, Release):
            self._ack(claim, Outcome.RELEASE)
            return
        if isinstance(outcome, Suspend):
            # Queued: all that it waits for has ended meanwhile. Parked: whoever wakes it pushes it again.
            self._ack(claim, Outcome.RETRY if activity.status == Status.QUEUED else Outcome.DONE)
            return
        if activity.status == Status.QUEUED and isinstance(outcome, Defer):
            self._ack(claim, Outcome.RETRY, outcome.delay)
        elif activity.status == Status.QUEUED and isinstance(outcome, Fail):
            self._ack(claim, Outcome.RETRY, outcome.retry_delay or 0.0)
        elif activity.status == Status.ERROR:
            self._info.failed += 1
            self._ack(claim, Outcome.DEAD)
        else:
            self._info.done += 1
            self._ack(claim, Outcome.DONE)

    # Stopping single activities

    def _stop_from_thread(self, reason: Stop, agent_ids: Iterable[UUID]) -> None:
        self._from_thread(self._stop, list(agent_ids), reason)

    def _stop(self, agent_ids: Iterable[UUID], reason: Stop, only_locked: bool = False) -> None:
        for agent_id in agent_ids:
            execution = self._executions.get(agent_id) or self._left.get(agent_id)
            # Without a lock key nobody is harmed if two run for a moment: the row takes one only.
            if execution is None or execution.was_told(reason):
                continue
            if execution.activity.lock_key or not only_locked:
                logger.info("Stopping %s %s: %s.", execution.activity.agent_type, agent_id, reason.value)
                execution.stop(reason)

    def _from_thread(self, function: Callable[..., object], *args: object) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    # Signs of life

    def _count_running(self) -> None:
        self._info.running = len(self._executions)

    async def _beat_each_second(self) -> None:
        while True:
            self._count_running()
            self._beat(self._info)
            self._stop(self._lease.overdue(), Stop.LOST, only_locked=True)
            worked = self._info.done + self._info.failed > 0  # a limit below the start's size must not stop all work
            if self._options.max_rss and worked and resident_memory() > self._options.max_rss:
                if not self._too_large:
                    logger.info("This process uses more than %d MB; it will be replaced.", self._options.max_rss >> 20)
                self._too_large = True
                self._claimer.stop()
            await asyncio.sleep(1.0)


def _active_rows() -> DatabaseState:
    active = Activity.objects.using(database()).active().exclude_suspended().managed()
    if active.running().exists():
        return DatabaseState.RUNNING
    return DatabaseState.WAITING if active.exists() else DatabaseState.NONE


def resident_memory() -> int:
    """Return this process's resident memory in bytes (its peak, where /proc is absent)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def install_signals(loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
    """SIGTERM drains, SIGUSR1 ends at once. Ctrl-C reaches the pool, which passes it on as one of them.

    However often SIGTERM comes, it drains: systemd sends it to every process of a service, and so does the pool.
    """
    loop.add_signal_handler(signal.SIGTERM, worker.drain)
    loop.add_signal_handler(signal.SIGUSR1, worker.end_now)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
