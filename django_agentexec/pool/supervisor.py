"""The pool: starts, monitors and stops worker processes.

When a worker process dies, the pool releases its claims at once. The activities that it was running become suspects:
only quarantine processes run them, one at a time.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from types import FrameType

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..queues import get_queue
from ..worker.entrypoint import EXIT_DRAINED, EXIT_RECYCLED
from ..worker.options import WorkerOptions, pool_name
from ..worker.shutdown import SHUTDOWN_TIMEOUT
from .preload import SYS_PATH_VARIABLE
from .process_handle import WorkerProcess
from .reconciler import Reconciler
from .services import ServiceFactory
from .systemd import ServiceManager

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds between two iterations of the main loop without an event
KILL_AFTER = SHUTDOWN_TIMEOUT + 2.0  # seconds after the grace period until a process that has not ended is killed
HEALTHY_AFTER = 60.0  # seconds of life of a process after which earlier failures no longer delay restarts
MAX_PAUSE = 30.0  # seconds between two starts while processes keep dying
SUSPECTS_INTERVAL = 5.0  # seconds between two checks for suspects that other pools have left
STARTUP_TIMEOUT = 120.0  # seconds for imports until the first heartbeat
SERVICE_TIMEOUT = 1.0  # seconds for the current step of a service at the end; an aborted transaction has no effect

EXIT_CLEAN = 0
EXIT_FORCED = 3


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The configuration of a pool."""

    worker: WorkerOptions
    workers: int
    """The number of processes; with 0 the pool runs only its services."""
    autoreload: bool = False
    services: tuple[ServiceFactory, ...] = ()


class Pool:
    """A supervisor of `options.workers` processes, which runs until it is stopped (or a burst ends)."""

    def __init__(self, options: PoolOptions) -> None:
        self.name = pool_name()
        self._options = options
        self._context = _context()
        self._processes: list[WorkerProcess] = []
        self._reconciler = Reconciler(self.name, options.worker.queues)
        self._services = [service.make(self.name) for service in options.services]
        self._started = 0
        self._failures = 0
        self._start_not_before = 0.0
        self._suspects_checked = 0.0
        self._stop_requests = 0  # incremented by signal handlers, handled by the main loop
        self._stops_begun = 0
        self._deadline = 0.0
        self._forced = False
        self._reload = False
        self._burst_ends = 0  # processes that found nothing left to claim
        self._quarantine_ended = 0.0  # when the end of the last quarantine process was noticed
        self._unreleased: list[tuple[WorkerOptions, bool]] = []  # ended processes with claims, and whether they crashed
        self._service_manager = ServiceManager()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    def run(self) -> int:
        """Run until stopped; return 0 after a clean end, 3 if processes had to be killed.

        Raises `QueueUnavailable` if the queue cannot be reached or used at the start.
        """
        get_queue().verify(self._options.worker.queues)
        restore = self._install_signals()
        self._reconciler.start()
        for service in self._services:
            service.start()
        try:
            self._supervise()
        finally:
            for process in self._processes:
                process.kill()
            self._reconciler.stop()
            for service in self._services:
                service.stop()
            for service in self._services:
                service.join(SERVICE_TIMEOUT)
            restore()
            get_queue().close()
        return EXIT_FORCED if self._forced else EXIT_CLEAN

    def stop(self) -> None:
        """Drain; a second call ends the processes at once. Safe in a signal handler and in any thread."""
        self._stop_requests += 1
        os.write(self._wake_writer, b".")

    def reload(self) -> None:
        """Drain, so that the caller of `run` can restart with changed code. Safe in any thread."""
        self._reload = True
        self.stop()

    @property
    def wants_reload(self) -> bool:
        """Whether the pool ended because of `reload`."""
        return self._reload

    # The main loop

    def _supervise(self) -> None:
        while True:
            if self._stop_requests > self._stops_begun:
                self._stops_begun += 1
                self._begin_stop()
            if self._stops_begun:
                self._request_stop()
            else:
                self._start_missing()
            if self._is_done():
                self._report_unreleased()
                return
            self._wait_for_events()
            self._notify_service_manager()
            self._reap()
            self._kill_stuck()
            self._start_quarantine()

    def _is_done(self) -> bool:
        if self._processes:
            return False
        if not self._stops_begun:
            return self._burst_is_done()
        # An unavailable queue may return before the deadline; an expired lease would count against its activity.
        return not self._unreleased or time.monotonic() >= self._deadline

    def _report_unreleased(self) -> None:
        for options, _ in self._unreleased:
            logger.error(
                "Could not release the claims of worker %s, since the queue is unavailable. Its activities run again "
                "when their leases have expired, which counts as an expired lease of each.",
                options.name,
            )

    def _notify_service_manager(self) -> None:
        self._service_manager.alive()
        ready = sum(process.has_heartbeat for process in self._processes)
        if ready >= self._options.workers:
            self._service_manager.ready(f"{ready} worker processes, queues {', '.join(self._options.worker.queues)}")

    def _wait_for_events(self) -> None:
        sources: list[int | Connection] = [self._wake_reader]
        for process in self._processes:
            sources += [process.sentinel, process.pipe]
        ready = wait(sources, TICK)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 1024)
        for process in self._processes:
            if process.pipe in ready:
                process.read_heartbeats()
            if process.needs_recovery:
                process.needs_recovery = False
                self._reconciler.request_recovery()

    def _start_missing(self) -> None:
        """Start missing processes, with a growing pause while processes keep dying."""
        regular = [process for process in self._processes if not process.options.quarantine]
        for _ in range(self._options.workers - self._burst_ends - len(regular)):
            if time.monotonic() < self._start_not_before:
                return
            self._start(self._options.worker)

    def _burst_is_done(self) -> bool:
        return self._options.worker.burst and self._burst_ends >= self._options.workers

    def _start(self, options: WorkerOptions) -> None:
        self._started += 1
        try:
            process = WorkerProcess(self._context, options.named(self._started))
        except (OSError, EOFError) as error:
            # The system is out of resources, or the fork server died.
            logger.error("Could not start a worker process: %r", error)
            self._pause_starts()
            return
        self._processes.append(process)
        logger.debug("Started %s as process %s.", process.options.name, process.pid)

    def _begin_stop(self) -> None:
        for service in self._services:
            service.stop()
        self._service_manager.stopping("Draining.")
        if self._stops_begun == 1:
            logger.info("Draining: running activities have %.0f s to finish.", conf.GRACE_PERIOD)
            self._deadline = time.monotonic() + conf.GRACE_PERIOD + KILL_AFTER
        else:
            logger.info("Stopping at once: running activities return to the queue.")
            self._deadline = time.monotonic() + (KILL_AFTER if self._processes else 0.0)

    def _request_stop(self) -> None:
        """Signal all processes, in each iteration: a process that is just starting does not handle signals yet."""
        for process in self._processes:
            if self._stops_begun == 1:
                process.drain()
            else:
                process.end_now()

    # Ended processes

    def _reap(self) -> None:
        for process in [process for process in self._processes if process.exit_code() is not None]:
            self._processes.remove(process)
            self._handle_exit(process)
        while self._unreleased and self._release(*self._unreleased[0]):
            del self._unreleased[0]

    def _handle_exit(self, process: WorkerProcess) -> None:
        process.read_heartbeats()
        code, pid = process.exit_code(), process.pid
        lived = time.monotonic() - process.started
        process.kill()  # if only the pipe broke, the process must not run activities whose claims are released
        process.close()
        crashed = code not in (EXIT_DRAINED, EXIT_RECYCLED) and not process.was_late
        # Also after a clean end: claims that a process could not release, because queue or database were unavailable,
        # need not wait until their leases expire.
        self._unreleased.append((process.options, crashed))
        burst_ends = code == EXIT_DRAINED or (crashed and not process.has_heartbeat)
        if process.options.quarantine:
            # Activities that waited behind its suspects need a regular process that polls the queue once more.
            self._burst_ends = max(0, self._burst_ends - 1)
            self._quarantine_ended = time.monotonic()
        elif self._options.worker.burst and burst_ends and process.started > self._quarantine_ended:
            self._burst_ends += 1
        if not crashed:
            self._failures = 0
            return
        if process.stopping and code == -signal.SIGTERM and not process.has_heartbeat:
            return  # ended by the signal before it handled signals
        how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"
        logger.error("Worker process %s (%s) ended %s after %.1f s.", process.options.name, pid, how, lived)
        if process.options.quarantine:
            return
        if lived > HEALTHY_AFTER:
            self._failures = 0
        self._pause_starts()

    def _pause_starts(self) -> None:
        """Count a failure: the first restart is immediate, further restarts wait 1, 2, 4 ... seconds."""
        self._failures += 1
        pause = 0.0 if self._failures == 1 else min(MAX_PAUSE, 2.0 ** (self._failures - 2))
        self._start_not_before = time.monotonic() + pause

    def _release(self, options: WorkerOptions, crashed: bool) -> bool:
        """Release the claims of an ended process; return False, to try again, if the queue is unavailable."""
        try:
            queue = get_queue()
            released = sum(queue.release_worker(name, options.name, crashed=crashed) for name in options.queues)
            queue.deregister_worker(options.name)
        except QueueUnavailable as error:
            logger.warning("Could not release the claims of worker %s, trying again: %s", options.name, error)
            return False
        if released:
            logger.warning("Activities of worker %s returned to the queue: %d.", options.name, released)
            self._suspects_checked = 0.0
        return True

    def _kill_stuck(self) -> None:
        now = time.monotonic()
        for process in self._processes:
            process.read_heartbeats()
            limit = conf.STUCK_TIMEOUT if process.has_heartbeat else STARTUP_TIMEOUT
            if now - process.last_beat > limit and not (process.stopping or process.was_killed):
                logger.error(
                    "The event loop of worker %s has been stuck for %.0f s; killing the process. A handler blocks it: "
                    "make that handler sync (`def`) to run it in a thread.",
                    process.options.name,
                    now - process.last_beat,
                )
                process.kill()
        if self._stops_begun and now > self._deadline and self._processes:
            self._forced = True
            for process in self._processes:
                if not process.was_late:
                    logger.error("Worker process %s did not end in time; killing it.", process.options.name)
                    process.kill_late()

    # Quarantine

    def _start_quarantine(self) -> None:
        now = time.monotonic()
        if self._stops_begun or not self._options.workers or now - self._suspects_checked < SUSPECTS_INTERVAL:
            return
        self._suspects_checked = now
        try:
            suspects = sum(get_queue().stats(name).suspects for name in self._options.worker.queues)
        except QueueUnavailable:
            return
        busy = sum(process.options.quarantine for process in self._processes)
        for _ in range(min(suspects, conf.QUARANTINE_WORKERS - busy)):
            self._start(self._options.worker.for_quarantine())

    def _install_signals(self) -> Callable[[], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            self._reload = False  # a signal during a reload ends the pool
            self.stop()

        previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in previous.items():
                signal.signal(number, handler)

        return restore


def _context() -> ForkServerContext | SpawnContext:
    """Return the start method of processes: a fork server with preloaded imports, or `spawn`.

    The fork server saves seconds and memory per process. On macOS, system libraries do not support a fork.
    """
    method = conf.START_METHOD or ("forkserver" if sys.platform == "linux" else "spawn")
    if method == "spawn":
        return multiprocessing.get_context("spawn")
    os.environ[SYS_PATH_VARIABLE] = json.dumps(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["django_agentexec.pool.preload"])
    return context
