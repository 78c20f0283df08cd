"""Parts of a worker that do not run: a test calls their steps, and looks at what comes of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

from django_agentexec.activity.transitions import Operation
from django_agentexec.models import Activity
from django_agentexec.queues import Ack, Claim, get_queue
from django_agentexec.worker.claimer import Claimer, HeldClaim
from django_agentexec.worker.executor import Execution
from django_agentexec.worker.heartbeat import Heartbeat
from django_agentexec.worker.invoker import WorkerInvoker
from django_agentexec.worker.options import WorkerOptions
from django_agentexec.worker.pipeline import Pipeline
from django_agentexec.worker.worker import Worker


class SteppedWorker(Worker):
    """A worker with five slots, without threads."""

    def __init__(self) -> None:
        options = WorkerOptions(("default",), 5, name="w")
        super().__init__(get_queue(), options, beat=lambda info: None, needs_recovery=lambda: None)

    @property
    def pipeline(self) -> Pipeline:
        """The steps of an activity."""
        return self._pipeline

    @property
    def acks(self) -> list[Ack]:
        """The acknowledgments that the next round trip to the queue sends."""
        return self._claimer._acks

    def next_write(self) -> Operation:
        """Return the next operation that is to be written."""
        write = self._committer._writes.get_nowait()
        assert write is not None
        return write.operation

    def execution(self, claim: Claim, activity: Activity) -> Execution:
        """Return the execution of a started activity."""
        return Execution(claim, activity, self._committer.submit, WorkerInvoker(self._threads))

    def launch(self, claim: Claim, activity: Activity, *, extended: float) -> None:
        """Launch the handler of a claim whose lease was last extended at `extended`, and wait for its end."""

        async def run() -> None:
            self._pipeline.bind(asyncio.get_running_loop())
            self._claimer.held[claim.agent_id] = HeldClaim(claim, extended)
            self._pipeline.launch(claim, activity)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

        asyncio.run(run())

    def next_claimed(self) -> UUID | None:
        """Send the acknowledgments, and return the activity that another worker then claims first."""
        claimed = get_queue().ack_and_claim("default", "w2", self.acks, limit=5).claimed
        return claimed[0].agent_id if claimed else None


class SteppedClaimer(Claimer):
    """A claimer whose turns a test takes itself, or whose state it reads while the threads run."""

    def take_turn(self) -> None:
        """Acknowledge and claim, as a thread does."""
        self._take_turn()

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a notification, or has free slots that it has not used yet."""
        return self._waiting or bool(self._freed)

    @property
    def free_slots(self) -> int:
        """The number of activities that it may claim."""
        return self._free_slots(0)


class SleeplessClaimer(Claimer):
    """A claimer that only notes the pauses between its turns, in seconds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pauses: list[float] = []

    def _sleep(self) -> None:
        self.pauses.append(self._sleeps_until - time.monotonic())


class SteppedHeartbeat(Heartbeat):
    """A heartbeat without a thread."""

    def beat(self) -> None:
        """Extend the leases of all claims."""
        self._beat()
