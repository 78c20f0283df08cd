"""A pool and a reconciler whose loops do not run: a test takes their steps."""

from __future__ import annotations

import signal
import time
from typing import Any, cast

from django_agentexec.pool.process_handle import WorkerProcess
from django_agentexec.pool.reconciler import Reconciler
from django_agentexec.pool.supervisor import Pool, PoolOptions
from django_agentexec.worker.entrypoint import EXIT_DRAINED, EXIT_RECYCLED
from django_agentexec.worker.options import WorkerOptions

DRAINED, RECYCLED, KILLED = EXIT_DRAINED, EXIT_RECYCLED, -signal.SIGKILL
"""Exit codes of processes."""

OPTIONS = WorkerOptions(queues=("default",), concurrency=1, name="a worker")
BURST = WorkerOptions(queues=("default",), concurrency=1, burst=True, name="a worker")


class Ended:
    """Stands for a process that has ended."""

    def __init__(
        self, options: WorkerOptions, code: int, *, has_heartbeat: bool = True, was_late: bool = False
    ) -> None:
        self.options, self.code, self.has_heartbeat = options, code, has_heartbeat
        self.started = time.monotonic()
        self.pid, self.stopping, self.was_late = 1, False, was_late

    def exit_code(self) -> int:
        return self.code

    def __getattr__(self, name: str) -> Any:
        return lambda: None


class Unkillable:
    """Stands for a process that neither sends heartbeats nor has ended yet."""

    options = OPTIONS
    has_heartbeat = True
    stopping = was_killed = was_late = False
    last_beat = -1e9

    def read_heartbeats(self) -> None: ...

    def kill(self) -> None:
        self.was_killed = True

    def kill_late(self) -> None:
        self.was_killed = self.was_late = True


class SteppedPool(Pool):
    """A pool of one process."""

    def __init__(self, options: WorkerOptions = OPTIONS) -> None:
        super().__init__(PoolOptions(worker=options, workers=1))

    @property
    def is_done(self) -> bool:
        """Whether the main loop would end now."""
        return self._is_done()

    @property
    def unreleased(self) -> list[tuple[WorkerOptions, bool]]:
        """The ended processes whose claims are to be released, and whether each has crashed."""
        return self._unreleased

    def add(self, process: Unkillable) -> None:
        """Add a running process."""
        self._processes.append(cast(WorkerProcess, process))

    def end(self, process: Ended) -> None:
        """Note the end of a process."""
        self._handle_exit(cast(WorkerProcess, process))

    def stop(self) -> None:
        """Begin to stop, as the main loop does after a signal."""
        self._stops_begun += 1
        self._begin_stop()

    def reach_deadline(self) -> None:
        """Let the time end that a stop has for the processes."""
        self._deadline = time.monotonic()

    def kill_stuck(self) -> None:
        """Kill the processes that are stuck or late."""
        self._kill_stuck()


class SteppedReconciler(Reconciler):
    """A reconciler without a thread. A step never waits."""

    def step(self) -> None:
        """Compare the rows with the queue, or repair a loss of data that was reported."""
        self._stopping.set()
        self._run_once()
