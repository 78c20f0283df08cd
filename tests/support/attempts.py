"""Attempts as a worker makes them: with children that are rows."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any
from uuid import UUID

from django_agentexec import Attempt
from django_agentexec.activity.transitions import Operation
from django_agentexec.children.spawned import SpawnedChildren
from django_agentexec.models import Activity
from django_agentexec.tasks.state import Write


def unused_write(operation: Operation) -> Future[Activity]:
    """The write of an attempt that only spawns and gathers."""
    raise AssertionError(f"This attempt is not to write {operation!r}.")


def worker_attempt(
    agent_id: UUID, number: int = 1, fence: int = 1, write: Write = unused_write, **values: Any
) -> Attempt:
    return Attempt(agent_id, number, fence, write, children=SpawnedChildren(), **values)
