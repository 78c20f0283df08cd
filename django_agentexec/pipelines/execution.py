"""Execution of a pipeline's steps in a worker: resumed after the last checkpoint, with retries per step.

Checkpoints are written through the attempt and therefore under its fence: an attempt that has lost its activity
cannot finish a step.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from pydantic import BaseModel

from ..activity.store import database
from ..activity.suspension import Deferred, Suspended
from ..activity.transitions import Operation, Progress
from ..children.spawned import SpawnedChildren
from ..current import running
from ..exceptions import SpawnMismatch, StaleAttempt
from ..models import StepRun, StepState
from ..public_errors import public_text_of
from ..tasks.attempt import Attempt
from ..tasks.definition import AnyTask
from ..threads import call
from ..validation import one_line
from .operations import BeginStep, FailStep, FinishStep
from .steps import Step

logger = logging.getLogger(__name__)

MAX_WAIT_IN_SLOT = 5.0  # seconds; for a longer wait until the next try, the activity returns to the queue

CONTEXT_DIGEST = "context"  # the input digest of the first step; the context of an activity never changes


class PipelineClass(Protocol):
    """The attributes of a `Pipeline` subclass that are needed to run its steps."""

    @property
    def task(self) -> AnyTask: ...

    @property
    def steps(self) -> tuple[Step, ...]: ...

    def for_step(self, context: BaseModel, attempt: Attempt) -> object:
        """Return the instance on which one step runs."""


async def run_steps(pipeline: PipelineClass, context: BaseModel, attempt: Attempt) -> Any:
    """Run the steps that have no checkpoint for the same input, and return the result of the last step."""
    checkpoints = {run.name: run for run in await sync_to_async(_load_step_runs)(attempt)}
    arguments: tuple[Any, ...] = (context,)
    value, digest = None, CONTEXT_DIGEST
    for step in pipeline.steps:
        run = checkpoints.get(step.name)
        if run is None or run.state != StepState.COMPLETE or run.input_digest != digest:
            execution = StepExecution(pipeline, context, attempt, step, arguments, digest, run)
            run = await execution.run()
        value, digest = step.loaded(run.result, run.result_type), run.result_digest
        arguments = step.as_arguments(value)
    return value


def _load_step_runs(attempt: Attempt) -> list[StepRun]:
    return list(StepRun.objects.using(database()).filter(activity_id=attempt.agent_id))


@dataclass
class StepExecution:
    """The tries of one step within an attempt."""

    pipeline: PipelineClass
    context: BaseModel
    attempt: Attempt
    step: Step
    arguments: tuple[Any, ...]
    input_digest: str
    previous: StepRun | None
    """The row of the step, written by an earlier attempt or by this attempt before a crash or suspension."""

    async def run(self) -> StepRun:
        """Run the step and return its checkpoint after the commit.

        Raises the error of the last try, and `Deferred` if the next try is due later than `MAX_WAIT_IN_SLOT`.
        """
        tries, retries, is_resumed = self._next_try()
        while True:
            await self._write(self._begin(tries, retries, is_resumed))
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
            tries, retries, is_resumed = tries + 1, retries + 1, False

    def _next_try(self) -> tuple[int, int, bool]:
        """Return the number of the try, the retries used in this attempt, and whether an unfinished try is resumed."""
        previous = self.previous
        if previous is None:
            return 1, 0, False
        if previous.attempt != self.attempt.number or previous.input_digest != self.input_digest:
            return previous.tries + 1, 0, False
        match previous.state:
            case StepState.RUNNING:
                return previous.tries, previous.retries, True
            case StepState.ERROR:  # a crash or a deferral before the next try
                return previous.tries + 1, previous.retries + 1, False
        return previous.tries + 1, 0, False

    def _common(self) -> dict[str, Any]:
        return {
            "agent_id": self.attempt.agent_id,
            "fence": self.attempt.fence,
            "name": self.step.name,
            "position": self.step.position,
            "count": len(self.pipeline.steps),
        }

    def _begin(self, tries: int, retries: int, is_resumed: bool) -> BeginStep:
        return BeginStep(
            **self._common(),
            title=self.step.title,
            input_digest=self.input_digest,
            tries=tries,
            retries=retries,
            attempt=self.attempt.number,
            is_resumed=is_resumed,
            has_new_input=self.previous is not None and self.previous.input_digest != self.input_digest,
        )

    async def _finish(self, result: Any) -> StepRun:
        digest = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
        await self._write(
            FinishStep(**self._common(), result=result, result_type=self.step.result_type, result_digest=digest)
        )
        return StepRun(result=result, result_type=self.step.result_type, result_digest=digest)

    async def _write(self, operation: Operation) -> None:
        # Shielded: a queued checkpoint is committed even if the attempt is being stopped.
        await asyncio.shield(asyncio.wrap_future(self.attempt.write(operation)))

    def _delay(self, error: Exception, retry: int) -> float | None:
        """Return the seconds until the next try, or None for no further try."""
        if retry > self.step.options.max_retries or self.attempt.canceled:
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
                raise self._caught(suspended)  # otherwise the checkpoint would contain a result without the children's
            await attempt.afinish()
        attempt.check_completion()
        return value

    def _caught(self, suspended: Suspended) -> Suspended:
        """Log a warning about the `Suspended` that the step has caught, and return it."""
        logger.warning(
            "Step %r of %s %s caught the exception that suspends it. Its outcome is discarded, and the step runs "
            "again when its wait is over. Do not catch BaseException around `gather` or a run.",
            self.step.name,
            self.pipeline.task.name,
            self.attempt.agent_id,
            extra={"agent_id": str(self.attempt.agent_id), "task": self.pipeline.task.name},
        )
        return suspended


def step_attempt(whole: Attempt, step: Step, count: int, tries: int) -> Attempt:
    """Return the attempt of one step: its progress is scaled to the step's share, its children belong to the step."""

    def scale(operation: Operation) -> Operation:
        if isinstance(operation, Progress) and operation.percentage is not None:
            return replace(operation, percentage=(100 * step.position + operation.percentage) // count)
        return operation

    return Attempt(
        whole.agent_id,
        whole.number,
        whole.fence,
        write=lambda operation: whole.write(scale(operation)),
        children=SpawnedChildren(),
        scope=step.name,
        tries=tries,
        adapt=scale,
        outer=whole,
        is_parent=whole.is_parent,
        metadata=whole.metadata,
        enqueued_by=whole.enqueued_by,
        session_id=whole.session_id,
        records_calls=whole.records_calls,
    )


async def call_step(step: Step, method: Any, arguments: tuple[Any, ...], attempt: Attempt) -> Any:
    """Call the method of a step within its time limit. Raises `TimeoutError` with the step's name."""
    limit = step.options.timeout
    late = TimeoutError(f"Step {step.name!r} took longer than {limit} s.")
    if step.is_async:
        attempt.enter()
        return await _await_in_time(method(*arguments), limit, late)
    # A thread cannot be stopped, so the step always lasts until its thread returns.
    running_step = asyncio.ensure_future(sync_to_async(_enter_and_call)(attempt, method, *arguments))
    running_step.add_done_callback(lambda done: done.cancelled() or done.exception())  # retrieved, if not awaited
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
    # A sync decorator around an `async def` returns an awaitable.
    return await _await_in_time(value, limit, late) if inspect.isawaitable(value) else value


def _enter_and_call(attempt: Attempt, method: Any, *arguments: Any) -> Any:
    attempt.enter()
    return call(method, *arguments)


async def _await_in_time(value: Awaitable[Any], limit: float | None, late: TimeoutError) -> Any:
    try:
        async with asyncio.timeout(limit) as clock:
            return await value
    except TimeoutError as error:
        if clock.expired():
            raise late from error
        raise
