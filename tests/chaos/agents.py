"""Tasks of a chaos run: their effects on their process, and their reports to the observer.

Every handler reports its start and how it ended, and writes progress in between whose text carries its fence. One
that is stopped tries to write once more, as a handler would that knows nothing of leases: the observer records
whether it was allowed.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from uuid import UUID

from pydantic import BaseModel

from django_agentexec import Attempt, Backoff, StaleAttempt, task
from tests.chaos.effects import append_effect
from tests.chaos.observer import report

EXIT = 7  # the code with which a task ends its process
SLICE = 0.02  # seconds between two checks of `attempt.canceled` by a sync handler
QUICKLY = Backoff(base=0.2, maximum=1.0)
_leaked: list[bytearray] = []


class Job(BaseModel):
    """The instructions of a handler. `name` is unique in a run, `key` is the lock key of tasks that have one."""

    name: str
    key: str = ""
    seconds: float = 0.0
    chance: float = 0.0
    """The probability of the special behaviour of the task."""
    megabytes: int = 0


class Answer(BaseModel):
    """The result: the execution that returned it."""

    name: str
    fence: int


class Planned(Exception):
    """An intended error."""


class Witness:
    """The reports of one execution to the observer."""

    def __init__(self, agent_id: UUID, job: Job, attempt: Attempt, *, starts: bool = True) -> None:
        self.name = job.name
        self.agent_id = str(agent_id)
        self.attempt = attempt
        if starts:
            self.report("start", detail=job.key)

    def report(self, kind: str, **fields: object) -> None:
        report(kind, name=self.name, agent_id=self.agent_id, fence=self.attempt.fence, **fields)

    def line(self, step: str) -> str:
        return f"fence={self.attempt.fence} {step}"

    async def awrite(self, step: str, percentage: float | None = None) -> None:
        """Write progress; report whether it was accepted, and when it was begun."""
        begun = time.monotonic()
        try:
            await self.attempt.aprogress(self.line(step), percentage)
        except StaleAttempt:
            self.report("refused", at=begun, detail=step)
            raise
        self.report("wrote", at=begun, detail=step)

    def write(self, step: str) -> None:
        """Sync version of `awrite`."""
        begun = time.monotonic()
        try:
            self.attempt.progress(self.line(step))
        except StaleAttempt:
            self.report("refused", at=begun, detail=step)
            raise
        self.report("wrote", at=begun, detail=step)

    def answer(self) -> Answer:
        append_effect(self.agent_id, self.attempt.fence, self.name)
        self.report("returned")
        return Answer(name=self.name, fence=self.attempt.fence)

    def fail(self) -> Planned:
        self.report("raised")
        return Planned(f"{self.name} fails as planned")


async def _work(agent_id: UUID, job: Job, attempt: Attempt) -> Witness:
    witness = Witness(agent_id, job, attempt)
    try:
        await witness.awrite("begins")
        await asyncio.sleep(job.seconds)
        await witness.awrite("half", 50)
        await asyncio.sleep(job.seconds)
    except asyncio.CancelledError:
        witness.report("stopped")
        await witness.awrite("farewell")
        raise
    except StaleAttempt:
        witness.report("stopped", detail="stale")
        raise
    return witness


@task("plain")
async def plain(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    return (await _work(agent_id, job, attempt)).answer()


@task("keyed", lock_key="key:{key}")
async def keyed(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    return (await _work(agent_id, job, attempt)).answer()


@task("keyed_sync", lock_key="key:{key}")
def keyed_sync(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    witness = Witness(agent_id, job, attempt)
    try:
        witness.write("begins")
        until = time.monotonic() + 2 * job.seconds
        while time.monotonic() < until and not attempt.canceled:
            time.sleep(SLICE)
        if attempt.canceled:
            witness.report("stopped")
            witness.write("farewell")
            return Answer(name=job.name, fence=attempt.fence)  # the result is ignored
        witness.write("half")
    except StaleAttempt:
        witness.report("stopped", detail="stale")
        raise
    return witness.answer()


@task("keyed_flaky", lock_key="key:{key}", max_retries=3, backoff=QUICKLY)
async def keyed_flaky(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    witness = await _work(agent_id, job, attempt)
    if random.random() < job.chance:
        raise witness.fail()
    return witness.answer()


@task("flaky", max_retries=3, backoff=QUICKLY)
async def flaky(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    witness = await _work(agent_id, job, attempt)
    if random.random() < job.chance:
        raise witness.fail()
    return witness.answer()


@task("failing", max_retries=2, backoff=QUICKLY)
async def failing(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    raise (await _work(agent_id, job, attempt)).fail()


@task("poison")
async def poison(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    witness = Witness(agent_id, job, attempt)
    witness.report("exits")
    os._exit(EXIT)


@task("exits")
async def exits(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    witness = await _work(agent_id, job, attempt)
    if random.random() < job.chance:
        witness.report("exits")
        os._exit(EXIT)
    return witness.answer()


@task("blocking")
async def blocking(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    witness = Witness(agent_id, job, attempt)
    witness.report("blocks")
    time.sleep(job.seconds)  # noqa: ASYNC251  # the misbehaviour under test
    witness.report("unblocks")
    try:
        await witness.awrite("after the block")
    except StaleAttempt:
        witness.report("stopped", detail="stale")
        raise
    except asyncio.CancelledError:
        witness.report("stopped")
        raise
    return witness.answer()


@task("leaking")
async def leaking(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    _leaked.append(bytearray(os.urandom(1024) * (1024 * job.megabytes)))
    return (await _work(agent_id, job, attempt)).answer()
