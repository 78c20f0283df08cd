"""The pool: starts worker processes, watches them, and stops them.

A child that dies leaves its claims behind; the pool gives them back at once. What was running when a process
died is a suspect, and goes to quarantine processes, one at a time each.
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
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from types import FrameType

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..queues import get_queue
from ..worker.entrypoint import EXIT_DRAINED, EXIT_RECYCLED
from ..worker.options import WorkerOptions, pool_name
from ..worker.worker import SHUTDOWN_TIMEOUT
from .options import PoolOptions
from .preload import SYS_PATH_VARIABLE
from .process_handle import Child
from .reconciler import Reconciler
from .systemd import ServiceManager

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds between two looks at everything, without an event
KILL_AFTER = SHUTDOWN_TIMEOUT + 2.0  # seconds beyond the grace period after which a process that does not end is killed
HEALTHY_AFTER = 60.0  # seconds a child must live to be forgiven its predecessors
MAX_PAUSE = 30.0
SUSPECTS_INTERVAL = 5.0  # seconds between two looks for suspects that other pools left
STARTUP_TIMEOUT = 120.0  # seconds for imports before the first sign of life
DUTY_TIMEOUT = 1.0  # seconds that a duty gets for the step it is in; a transaction cut short leaves nothing

EXIT_CLEAN = 0
EXIT_FORCED = 3


class Pool:
    """Supervises `options.workers` processes until it is told to stop (or a burst ends)."""

    def __init__(self, options: PoolOptions) -> None:
        self.name = pool_name()
        self._options = options
        self._context = _context()
        self._children: list[Child] = []
        self._reconciler = Reconciler(self.name, options.worker.queues)
        self._duties = [duty.make(self.name) for duty in options.duties]
        self._started = 0
        self._failures = 0
        self._start_not_before = 0.0
        self._suspects_checked = 0.0
        self._stop_requests = 0  # counted by signal handlers, acted upon by the loop
        self._stops_begun = 0
        self._deadline = 0.0
        self._forced = False
        self._reload = False
        self._burst_ends = 0  # processes that found nothing more to do
        self._quarantine_ended = 0.0  # when the last process of the quarantine was found to have ended
        self._unreleased: list[tuple[WorkerOptions, bool]] = []  # ended processes, and whether they crashed
        self._service_manager = ServiceManager()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    def run(self) -> int:
        """Run until stopped; return 0 after a clean end, 3 if processes had to be killed.

        Raises `QueueUnavailable` if the queue cannot be reached at the start, or cannot be used.
        """
        get_queue().verify(self._options.worker.queues)
        restore = self._install_signals()
        self._reconciler.start()
        for duty in self._duties:
            duty.start()
        try:
            self._supervise()
        finally:
            for child in self._children:
                child.kill()
            self._reconciler.stop()
            for duty in self._duties:
                duty.stop()
            for duty in self._duties:
                duty.join(DUTY_TIMEOUT)
            restore()
            get_queue().close()
        return EXIT_FORCED if self._forced else EXIT_CLEAN

    def stop(self) -> None:
        """Drain; called again, end at once. Safe in a signal handler and in any thread."""
        self._stop_requests += 1
        os.write(self._wake_writer, b".")

    def reload(self) -> None:
        """Drain, so that the caller of `run` can start anew with new code. Safe in any thread."""
        self._reload = True
        self.stop()

    @property
    def wants_reload(self) -> bool:
        """Whether it ended because of `reload`."""
        return self._reload

    # The loop

    def _supervise(self) -> None:
        while True:
            if self._stop_requests > self._stops_begun:
                self._stops_begun += 1
                self._begin_stop()
            if self._stops_begun:
                self._tell_to_stop()
            else:
                self._fill_up()
            if self._is_done():
                self._report_unreleased()
                return
            self._wait_for_events()
            self._notify_service_manager()
            self._reap()
            self._kill_the_stuck()
            self._look_for_suspects()

    def _is_done(self) -> bool:
        if self._children:
            return False
        if not self._stops_begun:
            return self._burst_is_done()
        # A queue that is away may be back before the time is over; the end of a lease would count as a crash.
        return not self._unreleased or time.monotonic() >= self._deadline

    def _report_unreleased(self) -> None:
        for options, _ in self._unreleased:
            logger.error(
                "What %s may have held was not given back, since the queue is away. It runs again when its "
                "leases have ended, and that counts as a crash.",
                options.name,
            )

    def _notify_service_manager(self) -> None:
        self._service_manager.alive()
        working = sum(child.has_beaten for child in self._children)
        if working >= self._options.workers:
            self._service_manager.ready(f"{working} worker processes, queues {', '.join(self._options.worker.queues)}")

    def _wait_for_events(self) -> None:
        sources: list[int | Connection] = [self._wake_reader]
        for child in self._children:
            sources += [child.sentinel, child.pipe]
        ready = wait(sources, TICK)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 1024)
        for child in self._children:
            if child.pipe in ready:
                child.read_beats()
            if child.needs_refill:
                child.needs_refill = False
                self._reconciler.refill()

    def _fill_up(self) -> None:
        """Start what is missing, with a growing pause while children keep dying."""
        regular = [child for child in self._children if not child.options.quarantine]
        for _ in range(self._options.workers - self._burst_ends - len(regular)):
            if time.monotonic() < self._start_not_before:
                return
            self._start(self._options.worker)

    def _burst_is_done(self) -> bool:
        return self._options.worker.burst and self._burst_ends >= self._options.workers

    def _start(self, options: WorkerOptions) -> None:
        self._started += 1
        try:
            child = Child(self._context, options.named(self._started))
        except (OSError, EOFError) as error:
            # The system has no room for it, or the fork server died in the middle.
            logger.error("A worker process could not be started: %r", error)
            self._pause_starts()
            return
        self._children.append(child)
        logger.debug("Started %s as process %s.", child.options.name, child.pid)

    def _begin_stop(self) -> None:
        for duty in self._duties:
            duty.stop()
        self._service_manager.stopping("Draining.")
        if self._stops_begun == 1:
            logger.info("Draining: running activities get %.0f s.", conf.GRACE_PERIOD)
            self._deadline = time.monotonic() + conf.GRACE_PERIOD + KILL_AFTER
        else:
            logger.info("Ending at once.")
            self._deadline = time.monotonic() + (KILL_AFTER if self._children else 0.0)

    def _tell_to_stop(self) -> None:
        """Tell all children, again at each tick: a process that is being made does not hear it yet."""
        for child in self._children:
            if self._stops_begun == 1:
                child.drain()
            else:
                child.end_now()

    # The ends of children

    def _reap(self) -> None:
        for child in [child for child in self._children if child.exit_code() is not None]:
            self._children.remove(child)
            self._handle_exit(child)
        while self._unreleased and self._release(*self._unreleased[0]):
            del self._unreleased[0]

    def _handle_exit(self, child: Child) -> None:
        child.read_beats()
        code, pid = child.exit_code(), child.pid
        lived = time.monotonic() - child.started
        child.kill()  # where only the line to it broke, its claims must not be run twice
        child.close()
        crashed = code not in (EXIT_DRAINED, EXIT_RECYCLED) and not child.was_late
        # Also after a clean end: what a process could not give back, because the queue or the database was away,
        # need not wait for the end of its lease.
        self._unreleased.append((child.options, crashed))
        burst_ends = code == EXIT_DRAINED or (crashed and not child.has_beaten)
        if child.options.quarantine:
            # What waited behind its suspects is for another regular process: one that has not looked before.
            self._burst_ends = max(0, self._burst_ends - 1)
            self._quarantine_ended = time.monotonic()
        elif self._options.worker.burst and burst_ends and child.started > self._quarantine_ended:
            self._burst_ends += 1
        if not crashed:
            self._failures = 0
            return
        if child.stopping and code == -signal.SIGTERM and not child.has_beaten:
            return  # told to stop before it had begun
        how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"
        logger.error("Worker process %s (%s) ended %s after %.1f s.", child.options.name, pid, how, lived)
        if child.options.quarantine:
            return
        if lived > HEALTHY_AFTER:
            self._failures = 0
        self._pause_starts()

    def _pause_starts(self) -> None:
        """Note a failure: the first restart is immediate; children that keep dying wait 1, 2, 4 ... seconds."""
        self._failures += 1
        pause = 0.0 if self._failures == 1 else min(MAX_PAUSE, 2.0 ** (self._failures - 2))
        self._start_not_before = time.monotonic() + pause

    def _release(self, options: WorkerOptions, crashed: bool) -> bool:
        """Give an ended process's claims back; False, for another try at the next tick, if the queue is away."""
        try:
            queue = get_queue()
            released = sum(queue.release_worker(name, options.name, crashed=crashed) for name in options.queues)
            queue.deregister_worker(options.name)
        except QueueUnavailable as error:
            logger.warning("The claims of %s cannot be given back yet: %s", options.name, error)
            return False
        if released:
            logger.warning("%d activities of %s go back to the queue.", released, options.name)
            self._suspects_checked = 0.0
        return True

    def _kill_the_stuck(self) -> None:
        now = time.monotonic()
        for child in self._children:
            child.read_beats()
            limit = conf.STUCK_TIMEOUT if child.has_beaten else STARTUP_TIMEOUT
            if now - child.last_beat > limit and not child.stopping:
                logger.error(
                    "The event loop of %s has been stuck for %.0f s; killing it. A handler blocks it: "
                    "make that handler sync (`def`), and it will run in a thread.",
                    child.options.name,
                    now - child.last_beat,
                )
                child.kill()
        if self._stops_begun and now > self._deadline and self._children:
            self._forced = True
            for child in self._children:
                logger.error("Worker process %s does not end; killing it.", child.options.name)
                child.kill_late()

    # Quarantine

    def _look_for_suspects(self) -> None:
        now = time.monotonic()
        if self._stops_begun or not self._options.workers or now - self._suspects_checked < SUSPECTS_INTERVAL:
            return
        self._suspects_checked = now
        try:
            suspects = sum(get_queue().stats(name).suspects for name in self._options.worker.queues)
        except QueueUnavailable:
            return
        busy = sum(child.options.quarantine for child in self._children)
        for _ in range(min(suspects, conf.QUARANTINE_WORKERS - busy)):
            self._start(self._options.worker.for_quarantine())

    def _install_signals(self) -> Callable[[], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            self._reload = False  # whoever stops it while it reloads wants it to end
            self.stop()

        previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in previous.items():
                signal.signal(number, handler)

        return restore


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes are started: from a fork server that holds the imports, or from nothing.

    The fork server saves seconds and memory per process. On macOS system libraries do not survive a fork.
    """
    method = conf.START_METHOD or ("forkserver" if sys.platform == "linux" else "spawn")
    if method == "spawn":
        return multiprocessing.get_context("spawn")
    os.environ[SYS_PATH_VARIABLE] = json.dumps(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["django_agentexec.pool.preload"])
    return context
