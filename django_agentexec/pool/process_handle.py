"""The handle of a pool on one of its worker processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from ..worker.entrypoint import SIGN_NEEDS_RECOVERY, run_worker
from ..worker.options import WorkerOptions


class WorkerProcess:
    """A worker process, its heartbeat pipe and its signals, as seen by the pool."""

    def __init__(self, context: ForkServerContext | SpawnContext, options: WorkerOptions) -> None:
        self.options = options
        self.started = self.last_beat = time.monotonic()
        self.stopping = False
        self.was_killed = False
        self.was_late = False
        self.has_heartbeat = False
        self.needs_recovery = False
        self.pipe, other_end = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(
            target=run_worker, args=(options, other_end), name=options.name, daemon=False
        )
        try:
            self.process.start()
        except BaseException:
            self.pipe.close()
            raise
        finally:
            other_end.close()
        # A pidfd always refers to this process; its pid may be reused after its end.
        self._handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid or 0

    @property
    def sentinel(self) -> int:
        """A handle that becomes readable when the process has ended."""
        return self.process.sentinel

    def read_heartbeats(self) -> None:
        """Read the heartbeats and requests that have arrived."""
        try:
            while self.pipe.poll():
                if self.pipe.recv_bytes() == SIGN_NEEDS_RECOVERY:
                    self.needs_recovery = True
                else:
                    self.last_beat, self.has_heartbeat = time.monotonic(), True
        except (EOFError, OSError):
            return  # the process has ended, which the sentinel reports

    def drain(self) -> None:
        """Request that the process stops claiming and ends when it is idle; may be repeated."""
        self.stopping = True
        self._signal(signal.SIGTERM)

    def end_now(self) -> None:
        """Request that the process releases its claims and ends at once; may be repeated."""
        self.stopping = True
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Kill the process."""
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def kill_late(self) -> None:
        """Kill a process that did not end in time; its end does not count as a crash of its activities."""
        self.was_late = True
        self.kill()

    def exit_code(self) -> int | None:
        """Return the exit code (negative: the number of a signal), or None while the process runs."""
        return self.process.exitcode

    def close(self) -> None:
        """Free the resources of the handle after the end of the process."""
        self.pipe.close()
        self.process.join()
        self.process.close()
        if self._handle is not None:
            os.close(self._handle)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)
            elif self.exit_code() is None:
                os.kill(self.pid, number)
