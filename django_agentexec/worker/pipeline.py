"""The steps of an activity in a worker process: claimed, started, ended, acknowledged.

The claimer calls `claimed`, the committer writes the start and the end of each attempt, and the event loop runs the
handlers. Each method names the thread in which it runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from uuid import UUID

from ..activity.suspension import Defer, Suspend
from ..activity.transitions import Fail, GiveUp, OwnedOperation, Release, Start
from ..conf import conf
from ..exceptions import ActivityNotFound, HeldBack, InvalidTransition, StaleAttempt
from ..models import Activity, Status
from ..queues import Claim, Limit, Outcome, WorkerInfo
from ..validation import one_line
from .claimer import Claimer
from .committer import Committer
from .executor import Execution, Stop
from .heartbeat import Heartbeat
from .invoker import HandlerInvoker
from .lifecycle_log import log_finished, log_started

logger = logging.getLogger(__name__)

DATABASE_REFUSED_DELAY = 30.0  # seconds until the retry of an attempt whose end the database rejected


class Pipeline:
    """The running activities of a worker process, and the way of each from its claim to its acknowledgment."""

    def __init__(
        self, info: WorkerInfo, claimer: Claimer, committer: Committer, heartbeat: Heartbeat, invoker: HandlerInvoker
    ) -> None:
        self.is_draining = False
        """Whether the worker claims nothing more."""
        self.is_stopping = False
        """Whether the worker also stops what is running."""
        self._info = info
        self._claimer = claimer
        self._committer = committer
        self._heartbeat = heartbeat
        self._invoker = invoker
        self._loop: asyncio.AbstractEventLoop
        self._executions: dict[UUID, Execution] = {}
        self._startable: deque[tuple[Claim, Activity]] = deque()
        self._is_launching = False
        # Executions whose handlers do not end: they run until the process ends, so their claims are released last.
        self._abandoned: dict[UUID, Execution] = {}
        self._deferred_acks: deque[tuple[Claim, Outcome]] = deque()
        self._releases_abandoned = False

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the event loop that runs the handlers."""
        self._loop = loop

    def call_in_loop(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the event loop. For any thread."""
        self._loop.call_soon_threadsafe(function, *args)

    @property
    def running(self) -> int:
        """The number of running activities."""
        return len(self._executions)

    @property
    def has_abandoned(self) -> bool:
        """Whether it has released activities whose handlers do not end before the process."""
        return bool(self._abandoned)

    # Claimed, started

    def claimed(self, claim: Claim) -> None:
        """Write the start of an attempt to its row. Runs in the claimer's threads."""
        if self.is_stopping:
            self._ack(claim, Outcome.RELEASE)  # the committer may have ended
            return
        start = Start(
            agent_id=claim.agent_id,
            fence=claim.fence,
            worker=self._info.id,
            crashes=claim.crashes,
            limit_keys=claim.limit_keys,
        )
        if claim.crashes >= conf.MAX_CRASHES or claim.expired_leases >= conf.MAX_EXPIRED_LEASES:
            start = GiveUp(
                agent_id=claim.agent_id,
                fence=claim.fence,
                worker=self._info.id,
                crashes=claim.crashes,
                expired_leases=claim.expired_leases,
            )
        self._committer.queue_write(start, partial(self.started, claim), is_start=True)

    def started(self, claim: Claim, written: Activity | Exception) -> None:
        """Launch the handler unless the row rejected the start. Runs in the committer's thread."""
        if isinstance(written, Activity):
            if written.status == Status.RUNNING:
                log_started(written)
                self._startable.append((claim, written))
                if not self._is_launching:
                    # One call for all starts of a commit, since each call costs a system call.
                    self._is_launching = True
                    self.call_in_loop(self._launch_all)
            else:
                self._ack(claim, Outcome.DEAD)  # given up after too many crashes
        elif isinstance(written, HeldBack):
            self._claimer.ack(claim, Outcome.HOLD, limits=tuple(map(Limit, written.keys)))
        elif isinstance(written, (InvalidTransition, ActivityNotFound)):
            self._ack(claim, self._outcome_of_rejection(written))  # canceled, finished or deleted meanwhile
        else:
            logger.error("Could not start activity %s: %s", claim.agent_id, one_line(written))
            self._return_to_queue(claim)

    def _launch_all(self) -> None:
        self._is_launching = False  # first: starts that are appended from here on schedule another call
        while self._startable:
            self.launch(*self._startable.popleft())

    def launch(self, claim: Claim, activity: Activity) -> None:
        """Start the handler of an activity. Runs in the event loop."""
        execution = Execution(claim, activity, self._committer.submit, self._invoker)
        self._executions[claim.agent_id] = execution
        if self.is_stopping:
            execution.stop(Stop.SHUTDOWN)
        elif activity.lock_key and self._heartbeat.is_overdue(claim.agent_id):
            execution.stop(Stop.LOST)  # this process was suspended since the start was written
        # The loop holds only weak references to tasks; the execution keeps its task alive.
        execution.task = self._loop.create_task(self._execute(execution))

    async def _execute(self, execution: Execution) -> None:
        try:
            outcome = await execution.run()
        except BaseException as error:  # a bug of this package must not occupy the slot and the lease
            logger.exception("Activity %s ended unexpectedly.", execution.claim.agent_id)
            outcome = Fail(agent_id=execution.claim.agent_id, fence=execution.claim.fence, error=one_line(error))
        self._ended(execution, outcome)

    # Ended, acknowledged

    def _ended(self, execution: Execution, outcome: OwnedOperation | None) -> None:
        """Write the outcome of an attempt to its row, once per execution. Runs in the event loop."""
        if self._executions.pop(execution.claim.agent_id, None) is not execution:
            return
        self._claimer.free(execution.claim)
        if outcome is None:
            log_finished(execution, None, None)
            # A lease that counts as lost only because the queue was unavailable may still be valid: run it again.
            self._ack(execution.claim, Outcome.RELEASE if execution.is_lost else Outcome.DONE)
        else:
            self._committer.queue_write(outcome, partial(self.end_written, execution, outcome))

    def end_written(self, execution: Execution, outcome: OwnedOperation, written: Activity | Exception) -> None:
        """Acknowledge a claim according to its row. Runs in the committer's thread."""
        if isinstance(written, Activity):
            log_finished(execution, outcome, written)
            self._acknowledge(execution.claim, outcome, written)
        elif isinstance(written, (InvalidTransition, ActivityNotFound)):
            log_finished(execution, outcome, None)
            self._ack(execution.claim, self._outcome_of_rejection(written))  # ended by another process meanwhile
        elif isinstance(outcome, Fail) or self.is_draining:
            logger.error("Could not write the end of activity %s: %s", outcome.agent_id, one_line(written))
            self._return_to_queue(execution.claim)
        else:
            # The database rejects this result permanently, for example because of a character that it cannot store.
            failure = Fail(agent_id=outcome.agent_id, fence=outcome.fence, error=one_line(written))
            self._committer.queue_write(failure, partial(self.end_written, execution, failure))

    def _outcome_of_rejection(self, error: Exception) -> Outcome:
        """Return the outcome of a claim whose write was rejected: done, since the row belongs to another attempt.

        A draining worker releases a stale attempt instead: its committer may have ended, which also rejects writes.
        The next worker that claims the activity then reads the row.
        """
        return Outcome.RELEASE if self.is_draining and isinstance(error, StaleAttempt) else Outcome.DONE

    def _return_to_queue(self, claim: Claim) -> None:
        """Let an activity run again whose write the database did not accept.

        A draining worker may only have lost its connection to the database: another worker starts the activity at
        once, before others with the same lock key.
        """
        if self.is_draining:
            self._ack(claim, Outcome.RELEASE)
        else:
            self._ack(claim, Outcome.RETRY, DATABASE_REFUSED_DELAY)

    def _acknowledge(self, claim: Claim, outcome: OwnedOperation, activity: Activity) -> None:
        if activity.status == Status.QUEUED and isinstance(outcome, Release):
            self._ack(claim, Outcome.RELEASE)
            return
        if isinstance(outcome, Suspend):
            # Queued: all awaited children have ended meanwhile. Suspended: the end of the last child pushes it again.
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

    def _ack(self, claim: Claim, outcome: Outcome, delay: float = 0.0) -> None:
        """Acknowledge a claim: at once, or at the very end if its handler was abandoned. For any thread."""
        if claim.agent_id not in self._abandoned:
            self._claimer.ack(claim, outcome, delay)
            return
        self._deferred_acks.append((claim, outcome))
        if self._releases_abandoned:  # checked after the append: one of the two threads sends it
            self._send_deferred_acks()

    # Stopping

    def stop_from_thread(self, reason: Stop, agent_ids: Iterable[UUID]) -> None:
        """Stop running activities. For any thread."""
        self.call_in_loop(self._stop, list(agent_ids), reason)

    def stop_overdue(self) -> None:
        """Stop locked activities whose lease has not been extended in time. Runs in the event loop.

        Without a lock key, two attempts may overlap for a moment: the row accepts only the writes of the newer.
        """
        self._stop(self._heartbeat.overdue(), Stop.LOST, only_locked=True)

    def stop_all(self, reason: Stop) -> None:
        """Stop all running activities. Runs in the event loop."""
        self._stop(list(self._executions), reason)

    def _stop(self, agent_ids: Iterable[UUID], reason: Stop, only_locked: bool = False) -> None:
        for agent_id in agent_ids:
            execution = self._executions.get(agent_id) or self._abandoned.get(agent_id)
            if execution is None or execution.was_stopped_for(reason):
                continue
            if execution.activity.lock_key or not only_locked:
                logger.info("Stopping %s %s: %s.", execution.activity.agent_type, agent_id, reason.value)
                execution.stop(reason)

    def abandon_running(self) -> None:
        """Release all activities whose handlers do not end. Runs in the event loop.

        Their threads end with the process; their late writes are rejected, and their claims are released last.
        """
        self._abandoned = dict(self._executions)
        for execution in list(self._executions.values()):
            self._ended(execution, execution.release())

    @property
    def is_flushed(self) -> bool:
        """Whether all claims are acknowledged, except those of abandoned handlers."""
        return self._abandoned.keys() >= set(self._claimer.held)

    def release_abandoned(self) -> None:
        """Release the claims of abandoned handlers, now and from now on. For any thread."""
        self._releases_abandoned = True
        self._send_deferred_acks()

    def _send_deferred_acks(self) -> None:
        with suppress(IndexError):
            while True:
                self._claimer.ack(*self._deferred_acks.popleft())
