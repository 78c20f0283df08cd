"""The measured tasks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from uuid import UUID

import agents  # noqa: F401  # the SDK, which accounts for most of the memory of real processes
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


class Canceled(BaseModel):
    path: str


@task("canceled")
async def canceled(agent_id: UUID, context: Canceled) -> None:
    """Wait for the cancellation, and write its time to a file."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        # Written under another name first, so that the file is complete when it appears.
        draft = Path(f"{context.path}.draft")
        draft.write_text(str(time.time_ns()))  # a few bytes, at the end of all
        draft.rename(context.path)
        raise


@task("pause")
async def pause(agent_id: UUID, context: Pause) -> None:
    await asyncio.sleep(context.seconds)


from . import durable_tasks  # noqa: E402, F401  # tasks of `benchmarks.durable`
