"""The tasks that are measured."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from pydantic import BaseModel

from django_agentexec import task


class Nothing(BaseModel):
    pass


class Key(BaseModel):
    key: int


class Pause(BaseModel):
    seconds: float


@task("noop")
async def noop(agent_id: UUID, context: Nothing) -> None:
    return None


@task("clock")
async def clock(agent_id: UUID, context: Nothing) -> int:
    return time.time_ns()


@task("keyed", lock_key="key:{key}")
async def keyed(agent_id: UUID, context: Key) -> None:
    return None


@task("pause")
async def pause(agent_id: UUID, context: Pause) -> None:
    await asyncio.sleep(context.seconds)
