"""The shutdown of a worker process: a list of phases, each with its time limit.

| phase                   | runs in     | at most           | effect                                                  |
|-------------------------|-------------|-------------------|---------------------------------------------------------|
| stop running handlers   | event loop  | `CANCEL_TIMEOUT`  | handlers are stopped; then the rest is abandoned        |
| flush writes            | own thread  | `FLUSH_TIMEOUT`   | ends are written, receivers of `worker_stopped` called  |
| release remaining claims| own thread  | `RELEASE_TIMEOUT` | the worker is deregistered, abandoned claims released   |

The first phase is skipped if all activities have ended within the grace period. A phase that exceeds its limit does
not prevent the next: the pool releases the claims that this process could not release.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ..signals import worker_stopped
from .claimer import Claimer
from .committer import Committer
from .executor import Stop
from .heartbeat import Heartbeat
from .pipeline import Pipeline
from .threads import ConnectionClosingExecutor

logger = logging.getLogger(__name__)

CANCEL_TIMEOUT = 2.0  # seconds for the clean-up of stopped handlers, after which the process abandons them
FLUSH_TIMEOUT = 8.0  # seconds for the last writes and for receivers of `worker_stopped`, together
RELEASE_TIMEOUT = 3.0  # seconds for the release of the remaining claims, after which the pool releases them
SHUTDOWN_TIMEOUT = CANCEL_TIMEOUT + FLUSH_TIMEOUT + RELEASE_TIMEOUT
"""Maximum seconds from the end of the grace period to the end of a worker, whether Redis is available or not."""
FLUSH_POLL = 0.02  # seconds between two checks whether all ends are written


class Phase(NamedTuple):
    """A step of the shutdown. `on_timeout` is called in the event loop if `run` takes longer than `timeout`."""

    name: str
    run: Callable[[], Awaitable[object]]
    timeout: float
    on_timeout: Callable[[], None]


class Shutdown:
    """The phases between the end of the work and the end of the process."""

    def __init__(
        self,
        sender: type,
        worker: str,
        pipeline: Pipeline,
        claimer: Claimer,
        committer: Committer,
        heartbeat: Heartbeat,
        drained: asyncio.Event,
    ) -> None:
        self._sender = sender
        self._worker = worker
        self._pipeline = pipeline
        self._claimer = claimer
        self._committer = committer
        self._heartbeat = heartbeat
        self._drained = drained
        # Separate threads, since handlers that do not end may occupy all threads of the loop; and one per phase,
        # since a phase that Redis or a receiver blocks must not prevent the next.
        self._threads = ConnectionClosingExecutor(2, thread_name_prefix="agentexec-end")

    def phases(self) -> list[Phase]:
        """Return the phases, in order."""
        phases = []
        if not self._drained.is_set():
            phases.append(
                Phase("stop running handlers", self._stop_handlers, CANCEL_TIMEOUT, self._pipeline.abandon_running)
            )
        return [
            *phases,
            self._phase_in_thread("flush writes", self._flush, FLUSH_TIMEOUT),
            self._phase_in_thread("release remaining claims", self._release, RELEASE_TIMEOUT),
        ]

    async def run(self) -> None:
        """Run the phases, each for at most its time limit."""
        for phase in self.phases():
            step = asyncio.ensure_future(phase.run())
            await asyncio.wait({step}, timeout=phase.timeout)
            if step.done():
                step.result()
            else:
                phase.on_timeout()

    def _phase_in_thread(self, name: str, function: Callable[[], None], timeout: float) -> Phase:
        def run() -> Awaitable[object]:
            return asyncio.get_running_loop().run_in_executor(self._threads, function)

        def on_timeout() -> None:
            logger.warning(
                "Shutdown phase '%s' took longer than %.0f s; the worker continues without it.", name, timeout
            )

        return Phase(name, run, timeout, on_timeout)

    async def _stop_handlers(self) -> None:
        logger.info("Returning %d running activities to the queue.", self._pipeline.running)
        self._pipeline.stop_all(Stop.SHUTDOWN)
        await self._drained.wait()

    def _flush(self) -> None:
        # Ends of finished activities may still be on their way through committer and event loop.
        until = time.monotonic() + CANCEL_TIMEOUT
        while time.monotonic() < until and not self._pipeline.is_flushed:
            time.sleep(FLUSH_POLL)
        self._committer.stop(CANCEL_TIMEOUT)
        worker_stopped.send_robust(self._sender, worker=self._worker)

    def _release(self) -> None:
        """Release the remaining claims last, since the next worker must not run an activity beside this process."""
        self._heartbeat.stop()
        self._heartbeat.deregister_worker()
        self._pipeline.release_abandoned()
        self._claimer.join(CANCEL_TIMEOUT)
