"""Runs a pipeline's steps inside an attempt: from the last checkpoint on, each step with its own tries.

The handler of every pipeline's task is `run_steps`. What it writes goes through the attempt, hence under its
fence: one that has lost its activity can finish no step.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from pydantic import BaseModel

from ..activity.current import running
from ..activity.deferral import Deferred
from ..activity.store import database
from ..activity.suspension import Suspended
from ..activity.transitions import Operation, Progress
from ..exceptions import SpawnMismatch, StaleAttempt
from ..models import StepRun, StepState
from ..public_errors import public_text_of
from ..tasks.attempt import Attempt
from ..threads import call
from ..validation import one_line
from .operations import BeginStep, FailStep, FinishStep
from .steps import Step

if TYPE_CHECKING:
    from .pipeline import Pipeline

logger = logging.getLogger(__name__)

MAX_WAIT_IN_SLOT = 5.0  # seconds; a step whose next try is later than that gives its slot to others

FIRST_DIGEST = "context"  # of the first step's input, which never changes in an activity's life


async def run_steps(pipeline: type[Pipeline], context: BaseModel, attempt: Attempt) -> Any:
    """Run those steps that have not finished with the same input, and return the last one's result."""
    from .inline import InlineAttempt, run_all

    if isinstance(attempt, InlineAttempt):
        return await run_all(pipeline, context, attempt)
    kept = {run.name: run for run in await sync_to_async(_load)(attempt)}
    arguments: tuple[Any, ...] = (context,)
    value, digest = None, FIRST_DIGEST
    for step in pipeline.steps:
        run = kept.get(step.name)
        if run is None or run.state != StepState.COMPLETE or run.input_digest != digest:
            execution = StepExecution(pipeline, context, attempt, step, arguments, digest, run)
            run = await execution.run()
        value, digest = step.loaded(run.result, run.result_type), run.result_digest
        arguments = step.unpacked(value)
    return value


def _load(attempt: Attempt) -> list[StepRun]:
    return list(StepRun.objects.using(database()).filter(activity_id=attempt.agent_id))


@dataclass
class StepExecution:
    """A step until it has finished, or has failed too often."""

    pipeline: type[Pipeline]
    context: BaseModel
    attempt: Attempt
    step: Step
    arguments: tuple[Any, ...]
    input_digest: str
    before: StepRun | None
    """What an earlier attempt, or this one before a crash or a wait, has left of it."""

    async def run(self) -> StepRun:
        """Run the step, and return its checkpoint once it is committed.

        Raises the last try's error, and `Deferred` if the next try is not due soon.
        """
        tries, retries, goes_on = self._so_far()
        while True:
            await self._write(self._begin(tries, retries, goes_on))
            try:
                result = self.step.stored(await self._call(tries))
            except StaleAttempt:
                raise
            except Exception as error:
                delay = self._delay(error, retries + 1)
                await self._write(self._failed(error, delay))
                if delay is None:
                    raise
            else:
                return await self._finish(result)
            if delay > MAX_WAIT_IN_SLOT:
                raise Deferred(delay)
            await asyncio.sleep(delay)
            tries, retries, goes_on = tries + 1, retries + 1, False

    def _so_far(self) -> tuple[int, int, bool]:
        """Return the number of this try, the retries used in this attempt, and whether a begun try goes on."""
        before = self.before
        if before is None:
            return 1, 0, False
        if before.attempt != self.attempt.number or before.input_digest != self.input_digest:
            return before.tries + 1, 0, False
        match before.state:
            case StepState.RUNNING:
                return before.tries, before.retries, True
            case StepState.ERROR:  # a crash or a deferral while it waited for its next try
                return before.tries + 1, before.retries + 1, False
        return before.tries + 1, 0, False

    def _common(self) -> dict[str, Any]:
        return {
            "agent_id": self.attempt.agent_id,
            "fence": self.attempt.fence,
            "name": self.step.name,
            "position": self.step.position,
            "count": len(self.pipeline.steps),
        }

    def _begin(self, tries: int, retries: int, goes_on: bool) -> BeginStep:
        return BeginStep(
            **self._common(),
            title=self.step.title,
            input_digest=self.input_digest,
            tries=tries,
            retries=retries,
            attempt=self.attempt.number,
            goes_on=goes_on,
            new_input=self.before is not None and self.before.input_digest != self.input_digest,
        )

    async def _finish(self, result: Any) -> StepRun:
        digest = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
        await self._write(
            FinishStep(**self._common(), result=result, result_type=self.step.result_type, result_digest=digest)
        )
        return StepRun(result=result, result_type=self.step.result_type, result_digest=digest)

    async def _write(self, operation: Operation) -> None:
        # Shielded: a checkpoint that was handed in is worth having even if the attempt is being stopped.
        await asyncio.shield(asyncio.wrap_future(self.attempt.write(operation)))

    def _delay(self, error: Exception, retry: int) -> float | None:
        """Return the seconds until the next try, or None if there is none."""
        if retry > self.step.options.retries or self.attempt.canceled:
            return None
        return self.pipeline.task.retry_policy.delay(error, retry, self.step.options.backoff)

    def _failed(self, error: Exception, delay: float | None) -> FailStep:
        shown = public_text_of(error, exposes_errors=self.pipeline.task.exposes_errors)
        text = one_line(error)
        return FailStep(**self._common(), title=self.step.title, error=text, public_error=shown, delay=delay)

    async def _call(self, tries: int) -> Any:
        attempt = step_attempt(self.attempt, self.step, len(self.pipeline.steps), tries)
        method = getattr(self.pipeline.for_step(self.context, attempt), self.step.name)
        with running(attempt):
            try:
                value = await call_step(self.step, method, self.arguments, attempt)
            except (StaleAttempt, SpawnMismatch):
                raise
            except Exception as error:
                if suspended := attempt.suspension:
                    raise self._caught(suspended) from error
                raise
            if suspended := attempt.suspension:
                raise self._caught(suspended)  # otherwise the checkpoint would be made of the wait's exception
            await attempt.afinish()
        attempt.check_completion()
        return value

    def _caught(self, suspended: Suspended) -> Suspended:
        """Return the wait that the step has caught, with a warning."""
        logger.warning(
            "Step %r of %s %s caught a wait for its children; what it returned or raised is discarded, and it runs "
            "again when they have ended. Let the exception of `gather` pass.",
            self.step.name,
            self.pipeline.task.name,
            self.attempt.agent_id,
            extra={"agent_id": str(self.attempt.agent_id), "task": self.pipeline.task.name},
        )
        return suspended


def step_attempt(whole: Attempt, step: Step, count: int, tries: int) -> Attempt:
    """Return the attempt that a step sees: its progress is the step's share, its children are the step's."""

    def share(operation: Operation) -> Operation:
        if isinstance(operation, Progress) and operation.percentage is not None:
            return replace(operation, percentage=(100 * step.position + operation.percentage) // count)
        return operation

    return Attempt(
        whole.agent_id,
        whole.number,
        whole.fence,
        write=lambda operation: whole.write(share(operation)),
        scope=step.name,
        tries=tries,
        adapt=share,
        outer=whole,
        is_parent=whole.is_parent,
        metadata=whole.metadata,
        enqueued_by=whole.enqueued_by,
    )


async def call_step(step: Step, method: Any, arguments: tuple[Any, ...], attempt: Attempt) -> Any:
    """Call a step's method within its time limit; raises `TimeoutError` with the step's name."""
    limit = step.options.timeout
    late = TimeoutError(f"Step {step.name!r} took longer than {limit} s.")
    if step.is_async:
        attempt.enter()
        return await _in_time(method(*arguments), limit, late)
    # A thread cannot be stopped: whatever happens, the step is over when it has given in.
    running_step = asyncio.ensure_future(sync_to_async(_entered)(attempt, method, *arguments))
    running_step.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody may not wait for it
    try:
        await asyncio.wait({running_step}, timeout=limit)
    finally:
        in_time = running_step.done()
        if not in_time:
            attempt.cancel()
            await asyncio.wait({running_step})
    value = running_step.result()
    if not in_time:
        raise late
    # A sync decorator around an `async def` returns what is still to be awaited.
    return await _in_time(value, limit, late) if inspect.isawaitable(value) else value


def _entered(attempt: Attempt, method: Any, *arguments: Any) -> Any:
    attempt.enter()
    return call(method, *arguments)


async def _in_time(value: Awaitable[Any], limit: float | None, late: TimeoutError) -> Any:
    try:
        async with asyncio.timeout(limit) as clock:
            return await value
    except TimeoutError as error:
        if clock.expired():
            raise late from error
        raise
