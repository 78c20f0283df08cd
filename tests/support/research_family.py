"""A parent that has others do its research: for the tests of children, of waiting for them, and of their ends."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel

from django_agentexec import Attempt
from django_agentexec.models import Activity
from django_agentexec.queues import Claim
from django_agentexec.tasks import AnyTask, registry
from tests.support.activity_rows import claim, complete, row, start, suspend
from tests.support.attempts import worker_attempt

RUNS: list[str] = []
FAILING: set[str] = set()


class Company(BaseModel):
    name: str


class Brief(BaseModel):
    about: str


class Companies(BaseModel):
    names: list[str] = ["Acme", "Globex"]
    tolerant: bool = False


def research(agent_id: UUID, context: Company) -> Brief:
    RUNS.append(context.name)
    if context.name in FAILING:
        raise ValueError(context.name)
    return Brief(about=context.name)


async def discover(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    RUNS.append("discover")
    runs = [await attempt.aspawn("research", Company(name=name)) for name in context.names]
    briefs = await attempt.agather(*runs, return_exceptions=context.tolerant)
    return [brief.about if isinstance(brief, Brief) else type(brief).__name__ for brief in briefs]


def sync_discover(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    RUNS.append("discover")
    runs = attempt.spawn_many("research", [Company(name=name) for name in context.names])
    return [brief.about for brief in attempt.gather(*runs)]


def defined(name: str) -> AnyTask:
    return registry.get(name)


def parent_of(name: str = "discover", **context: Any) -> UUID:
    return defined(name).enqueue(Companies(**context)).agent_id


def attempt_of(agent_id: UUID, fence: int = 1) -> Attempt:
    return worker_attempt(agent_id, row(agent_id).attempt, fence)


def running_parent() -> Attempt:
    agent_id = parent_of()
    start(agent_id)
    return attempt_of(agent_id)


def claimed_parent(agent_id: UUID) -> tuple[Claim, Attempt]:
    """Start it as a worker does that has claimed it."""
    (held,) = claim(1)
    start(agent_id, held.fence)
    return held, attempt_of(agent_id, held.fence)


def park(attempt: Attempt, *children: UUID) -> Activity:
    return suspend(attempt.agent_id, attempt.fence, awaits=children)


def finish(agent_id: UUID, fence: int = 9) -> None:
    start(agent_id, fence)
    complete(agent_id, fence, result={"about": "x"})
