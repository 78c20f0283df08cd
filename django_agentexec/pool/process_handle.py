"""A pool's handle on one of its worker processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from ..worker.entrypoint import SIGN_NEEDS_REFILL, run_worker
from ..worker.options import WorkerOptions


class Child:
    """The pool's handle on one worker process."""

    def __init__(self, context: ForkServerContext | SpawnContext, options: WorkerOptions) -> None:
        self.options = options
        self.started = self.last_beat = time.monotonic()
        self.stopping = False
        self.was_late = False
        self.has_beaten = False
        self.needs_refill = False
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
        # Names this process for good; its number may belong to another one after its end.
        self._handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid or 0

    @property
    def sentinel(self) -> int:
        """Becomes readable when the process has ended."""
        return self.process.sentinel

    def read_beats(self) -> None:
        """Note the signs of life that have arrived."""
        try:
            while self.pipe.poll():
                if self.pipe.recv_bytes() == SIGN_NEEDS_REFILL:
                    self.needs_refill = True
                else:
                    self.last_beat, self.has_beaten = time.monotonic(), True
        except (EOFError, OSError):
            return  # it has ended; the sentinel tells

    def drain(self) -> None:
        """Ask it to claim nothing more, and to end; may be asked again and again."""
        self.stopping = True
        self._signal(signal.SIGTERM)

    def end_now(self) -> None:
        """Ask it to give everything back and end at once; may be asked again and again."""
        self.stopping = True
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End it now, without its help."""
        self._signal(signal.SIGKILL)

    def kill_late(self) -> None:
        """End one that was told to end, and has not: what it runs is not to blame for that."""
        self.was_late = True
        self.kill()

    def exit_code(self) -> int | None:
        """Return how it ended (negative: by that signal), or None while it runs."""
        return self.process.exitcode

    def close(self) -> None:
        """Free its handle after the end."""
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
