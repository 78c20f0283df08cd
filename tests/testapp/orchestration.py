"""Pipelines and families of the process tests. They record in a journal what they do, and die at given places."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from django_agentexec import Attempt, Pipeline, step, task
from django_agentexec.activity.suspension import Resume, Suspend
from django_agentexec.activity.transitions import Operation
from django_agentexec.pipelines.operations import FinishStep
from django_agentexec.signals import changes_committed

from .work import Work, note

STEPS = ("collect", "clean", "analyze", "write", "publish")
DEATHS = "AGENTEXEC_TEST_DEATHS"
"""Names a journal: each process that reaches one of the places in its table `deaths` dies there, once."""

IMPATIENT = "AGENTEXEC_TEST_IMPATIENT"
"""Set, a pool does not pause after many deaths in a row, which the tests bring about."""


def die_at(place: str) -> None:
    """End this worker process as the kernel would, if the journal says so."""
    path = os.environ.get(DEATHS)
    if not path or multiprocessing.parent_process() is None:  # the pool wakes, too, when it reconciles
        return
    with sqlite3.connect(path, timeout=30) as connection:
        died = connection.execute("DELETE FROM deaths WHERE place = ?", (place,)).rowcount
    connection.close()
    if died:
        os.kill(os.getpid(), signal.SIGKILL)


class State(BaseModel):
    """What one step hands to the next."""

    journal: str
    name: str
    seconds: float = 0.0
    children: int = 0
    done: list[str] = []


class FivePipeline(Pipeline, max_retries=0, name="five_steps"):
    """Five steps, each with an effect and, if wanted, with children."""

    @step(0)
    async def collect(self, context: State) -> State:
        return await self._work("collect", context)

    @step(1)
    async def clean(self, state: State) -> State:
        return await self._work("clean", state)

    @step(2)
    async def analyze(self, state: State) -> State:
        return await self._work("analyze", state)

    @step(3)
    async def write(self, state: State) -> State:
        return await self._work("write", state)

    @step(4)
    async def publish(self, state: State) -> State:
        return await self._work("publish", state)

    async def _work(self, name: str, state: State) -> State:
        full = f"{state.name}-{name}"
        await asyncio.to_thread(note, state.journal, "start", full, self.agent_id)
        await asyncio.to_thread(die_at, f"{name}:start")
        await asyncio.sleep(state.seconds)
        contexts = [
            Work(journal=state.journal, name=f"{full}-{number}", seconds=state.seconds)
            for number in range(state.children)
        ]
        found = await self.agather(*(self.aspawn("work", context) for context in contexts))
        await asyncio.to_thread(note, state.journal, "end", full, self.agent_id)
        await asyncio.to_thread(die_at, f"{name}:end")
        return state.model_copy(update={"done": [*state.done, name, *found]})


class Fan(BaseModel):
    """How far to fan out."""

    journal: str
    name: str = ""
    width: int = 50
    seconds: float = 0.0


@task("fan_out", max_retries=0)
async def fan_out(agent_id: UUID, context: Fan, attempt: Attempt) -> int:
    runs = await attempt.aspawn_many(
        "work",
        [
            Work(journal=context.journal, name=f"{context.name}-{number:03}", seconds=context.seconds)
            for number in range(context.width)
        ],
    )
    names = await attempt.agather(*runs)
    summary = Work(journal=context.journal, name=f"{context.name}-total", seconds=context.seconds)
    total = await attempt.aspawn("work", summary)
    await attempt.agather(total)
    return len(set(names))


@task("sync_fan_out", max_retries=0)
def sync_fan_out(agent_id: UUID, context: Fan, attempt: Attempt) -> int:
    runs = [
        attempt.spawn("work", Work(journal=context.journal, name=f"{context.name}-{number:03}"))
        for number in range(context.width)
    ]
    return len(set(attempt.gather(*runs)))


def _dying(kind: type[Operation], moment: str, place: Callable[[Any], str]) -> None:
    """Let processes die inside the transaction that writes such an operation."""
    save_related = kind.save_related

    def write_more_and_die(self: Any, activity: Any, now: Any) -> None:
        save_related(self, activity, now)
        die_at(f"{place(self)}:{moment}")

    kind.save_related = write_more_and_die  # type: ignore[method-assign]  # in this test's processes


def _die_after_the_commit(changes: list[tuple[Any, Any, Operation | None]], **_: Any) -> None:
    for _activity, _line, operation in changes:
        match operation:
            case FinishStep():
                die_at(f"{operation.name}:committed")
            case Suspend():
                die_at("park:committed")
            case Resume():
                die_at("wake:committed")


if os.environ.get(IMPATIENT):
    from django_agentexec.pool import supervisor

    supervisor.MAX_PAUSE = 0.1

if os.environ.get(DEATHS):
    _dying(FinishStep, "uncommitted", lambda operation: operation.name)
    _dying(Suspend, "uncommitted", lambda operation: "park")
    _dying(Resume, "uncommitted", lambda operation: "wake")
    changes_committed.connect(_die_after_the_commit, dispatch_uid="tests.deaths")
