"""Tasks of a rolling deploy in addition to those of a chaos run. They use only what both releases offer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from django_agentexec import Attempt, Pipeline, step, task
from tests.chaos.agents import Answer, Job, Witness
from tests.chaos.observer import report
from tests.chaos.rolling_deploy import REPAIRED

TICK = "tick"
STEPS = ("collect", "digest", "publish")
_begun: set[tuple[UUID, int]] = set()


class Family(Job):
    """A parent with `width` children, and one more after they have ended."""

    width: int = 2


class State(Job):
    """The result of a step."""

    children: list[str] = []


class Broken(Exception):
    """A result that differs from the expected result."""


def children_of(job: Job, count: int, place: str) -> list[Job]:
    """Return the contexts of children, reported to the observer as offered."""
    jobs = [Job(name=f"{job.name}-{place}{number}", key=job.key, seconds=job.seconds) for number in range(count)]
    for child in jobs:
        report("offers", name=child.name)
    return jobs


def check(jobs: Sequence[Job], results: Sequence[object]) -> None:
    """Raise `Broken` unless these are the results of these children, in order."""
    found = [Answer.model_validate(result).name for result in results]
    if found != [job.name for job in jobs]:
        raise Broken(f"The results of {[job.name for job in jobs]} are {found}.")


def is_repaired(name: str) -> Path:
    """Return the path of the file that exists when the activity of this name succeeds."""
    return Path(os.environ[REPAIRED]) / name


@task("repairable", max_retries=0)
async def repairable(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    witness = Witness(agent_id, job, attempt)
    await witness.awrite("begins")
    if not is_repaired(job.name).exists():
        raise witness.fail()
    return witness.answer()


@task(TICK)
async def tick(agent_id: UUID, job: Job, attempt: Attempt) -> Answer:
    return Witness(agent_id, job, attempt).answer()


@task("family", max_retries=1)
async def family(agent_id: UUID, job: Family, attempt: Attempt) -> Answer:
    witness = Witness(agent_id, job, attempt)
    try:
        jobs = children_of(job, job.width, "c")
        check(jobs, await attempt.agather(*await attempt.aspawn_many("plain", jobs)))
        last = children_of(job, 1, "last")
        check(last, await attempt.agather(*await attempt.aspawn_many("plain", last)))
    except BaseException:
        witness.report("stopped")
        raise
    return witness.answer()


@task("family_sync", max_retries=1)
def family_sync(agent_id: UUID, job: Family, attempt: Attempt) -> Answer:
    witness = Witness(agent_id, job, attempt)
    try:
        jobs = children_of(job, job.width, "c")
        check(jobs, attempt.gather(*attempt.spawn_many("plain", jobs)))
    except BaseException:
        witness.report("stopped")
        raise
    return witness.answer()


class Relay(Pipeline, max_retries=1, name="relay"):
    """Three steps, of which the second has children. An execution is reported at its first step."""

    @step(0)
    async def collect(self, context: Job) -> State:
        async with self._step("collect", context):
            await asyncio.sleep(context.seconds)
        return State(name=context.name, key=context.key, seconds=context.seconds)

    @step(1)
    async def digest(self, state: State) -> State:
        async with self._step("digest", state):
            jobs = children_of(state, 2, "d")
            check(jobs, await self.attempt.agather(*await self.attempt.aspawn_many("plain", jobs)))
        return state.model_copy(update={"children": [job.name for job in jobs]})

    @step(2)
    async def publish(self, state: State) -> Answer:
        async with self._step("publish", state) as witness:
            await asyncio.sleep(state.seconds)
            if len(state.children) != 2:
                raise Broken(f"The state of {state.name} has the children {state.children}.")
        return witness.answer()

    @asynccontextmanager
    async def _step(self, name: str, job: Job) -> AsyncIterator[Witness]:
        is_first = (self.agent_id, self.attempt.fence) not in _begun
        _begun.add((self.agent_id, self.attempt.fence))
        witness = Witness(self.agent_id, job, self.attempt, starts=is_first)
        witness.report("step", detail=str(STEPS.index(name)))
        try:
            yield witness
        except BaseException:
            witness.report("stopped")
            raise
