"""The lifecycle of a worker process: it claims, runs up to `concurrency` activities on one event loop, and shuts down.

The event loop runs only handlers; Redis, database and leases have threads of their own:

    claimer --claim--> committer (Start) --row--> loop (handler) --outcome--> committer --row--> claimer

`pipeline.py` implements these steps, `shutdown.py` the end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable

from django.db import connections

from ..activity.store import database
from ..concurrency.table import table as rules
from ..conf import conf
from ..models import Activity
from ..queues import Claim, DatabaseState, Queue, WorkerInfo, get_queue
from ..signals import worker_started
from .claimer import Claimer
from .committer import Committer
from .executor import Stop
from .heartbeat import Heartbeat
from .invoker import WorkerInvoker
from .lifecycle_log import log_ready
from .options import WorkerOptions
from .pipeline import Pipeline
from .shutdown import Shutdown
from .threads import ConnectionClosingExecutor

logger = logging.getLogger(__name__)

MONITOR_INTERVAL = 1.0  # seconds between two heartbeats to the pool, and between two checks of leases and memory


class Worker:
    """A worker process. `await run()` returns when it has drained.

    `beat` is called once a second from the event loop, so that the pool can detect a blocked loop. `needs_recovery`
    is called from another thread while the queue has lost its data.
    """

    def __init__(
        self,
        queue: Queue,
        options: WorkerOptions,
        *,
        beat: Callable[[WorkerInfo], None],
        needs_recovery: Callable[[], None],
    ) -> None:
        self._options = options
        self._beat = beat
        self._threads = ConnectionClosingExecutor(options.concurrency, thread_name_prefix="agentexec-sync")
        self._stop_requested = asyncio.Event()
        self._drained = asyncio.Event()
        self._exceeds_memory = False
        self._info = _worker_info(options)
        self._committer = Committer()
        self._claimer = Claimer(
            queue,
            options.queues,
            options.name,
            options.concurrency,
            on_claim=self._on_claim,
            on_end=self._on_drained,
            weights=options.weights,
            quarantine=options.quarantine,
            burst=options.burst,
            max_claims=options.max_tasks,
            only=options.only,
            rows=_database_state(),
            on_needs_recovery=needs_recovery,
            on_limits=_follow_limits,
        )
        rules.load()
        self._heartbeat = Heartbeat(
            queue,
            self._info,
            self._claimer.held,
            self._claimer.release_lock,
            on_lost=lambda agent_ids: self._pipeline.stop_from_thread(Stop.LOST, agent_ids),
            on_canceled=lambda agent_ids: self._pipeline.stop_from_thread(Stop.CANCELED, agent_ids),
            on_beat=self._count_running,
        )
        self._pipeline = Pipeline(
            self._info, self._claimer, self._committer, self._heartbeat, WorkerInvoker(self._threads)
        )
        self._shutdown = Shutdown(
            Worker, options.name, self._pipeline, self._claimer, self._committer, self._heartbeat, self._drained
        )

    async def run(self) -> None:
        """Work until drained: after `drain()`, the end of a burst, or the limit of tasks or memory."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(self._threads)
        self._pipeline.bind(self._loop)
        worker_started.send_robust(Worker, worker=self._options.name)
        self._committer.start()
        self._claimer.start()
        self._heartbeat.start()
        log_ready(self._options)
        monitor = asyncio.ensure_future(self._monitor())
        try:
            await self._until_drained_or_stopped()
        finally:
            await self._shutdown.run()
            monitor.cancel()  # last, since abandoned handlers may still lose their leases

    def drain(self) -> None:
        """Claim nothing more, and end when idle or after the grace period. Callable in the event loop.

        May be called again: a signal to the whole process group arrives a second time from the pool.
        """
        if self._pipeline.is_draining:
            return
        self._pipeline.is_draining = True
        self._claimer.stop()
        self._loop.call_later(conf.GRACE_PERIOD, self._request_stop)

    def end_now(self) -> None:
        """Claim nothing more, and return running activities to the queue at once. Callable in the event loop."""
        self.drain()
        self._request_stop()

    @property
    def reached_limit(self) -> bool:
        """Whether the worker ended because of its limit of tasks or memory, and is to be replaced."""
        return self._exceeds_memory or self._claimer.reached_limit

    @property
    def has_tried(self) -> bool:
        """Whether the queue was asked for a claim once, or did not reply."""
        return self._claimer.has_tried

    @property
    def has_abandoned(self) -> bool:
        """Whether handlers that did not end in time still run: their activities are released, the process must end."""
        return self._pipeline.has_abandoned

    def _request_stop(self) -> None:
        self._pipeline.is_stopping = True
        self._stop_requested.set()

    async def _until_drained_or_stopped(self) -> None:
        drained = asyncio.ensure_future(self._drained.wait())
        stop = asyncio.ensure_future(self._stop_requested.wait())
        await asyncio.wait({drained, stop}, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        stop.cancel()

    def _on_claim(self, claim: Claim) -> None:
        self._pipeline.claimed(claim)

    def _on_drained(self) -> None:
        self._pipeline.call_in_loop(self._drained.set)

    def _count_running(self) -> None:
        self._info.running = self._pipeline.running

    async def _monitor(self) -> None:
        while True:
            self._count_running()
            self._beat(self._info)
            self._pipeline.stop_overdue()
            self._check_memory()
            await asyncio.sleep(MONITOR_INTERVAL)

    def _check_memory(self) -> None:
        has_worked = self._info.done + self._info.failed > 0  # a limit below the initial size must not prevent all work
        if self._options.max_rss and has_worked and resident_memory() > self._options.max_rss:
            if not self._exceeds_memory:
                logger.info("This process uses more than %d MB; it will be replaced.", self._options.max_rss >> 20)
            self._exceeds_memory = True
            self._claimer.stop()


async def create_worker(
    options: WorkerOptions, *, beat: Callable[[WorkerInfo], None], needs_recovery: Callable[[], None]
) -> Worker:
    """Return a worker, created in a thread, since it reads the database."""

    def create() -> Worker:
        try:
            return Worker(get_queue(), options, beat=beat, needs_recovery=needs_recovery)
        finally:
            connections.close_all()

    return await asyncio.to_thread(create)


def _worker_info(options: WorkerOptions) -> WorkerInfo:
    return WorkerInfo(
        id=options.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        queues=list(options.queues),
        concurrency=options.concurrency,
        quarantine=options.quarantine,
        started=time.time(),
    )


def _follow_limits(queue: str, revision: str) -> None:
    """Read limits and pauses again if claims were made under others. Runs in the claimer's threads."""
    if not rules.is_current(queue, revision):
        try:
            rules.follow(queue, revision)
        finally:
            connections.close_all()


def _database_state() -> DatabaseState:
    active = Activity.objects.using(database()).active().exclude_suspended().managed()
    if active.running().exists():
        return DatabaseState.RUNNING
    return DatabaseState.WAITING if active.exists() else DatabaseState.NONE


def resident_memory() -> int:
    """Return the resident memory of this process in bytes (its peak, if /proc is missing)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def install_signals(loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
    """Drain on SIGTERM, end at once on SIGUSR1, ignore SIGINT: the pool handles Ctrl-C and sends one of the others.

    Repeated SIGTERMs only drain: systemd sends SIGTERM to every process of a service, and so does the pool.
    """
    loop.add_signal_handler(signal.SIGTERM, worker.drain)
    loop.add_signal_handler(signal.SIGUSR1, worker.end_now)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
