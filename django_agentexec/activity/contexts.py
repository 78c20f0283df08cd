"""How a corrected context becomes what a row stores: by a function that the tasks, a layer above, register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from ..exceptions import ActivityNotFound, AgentExecError
from ..models import Activity
from .store import database

Context = BaseModel | Mapping[str, Any]
Prepare = Callable[[str, Context, Mapping[str, Any]], tuple[dict[str, Any], str]]
"""Returns the stored form of a context of the task of this name, and the lock key that it gives with this metadata."""

_prepare: list[Prepare] = []


def register_prepare(prepare: Prepare) -> None:
    """Let `prepare` turn contexts into what rows store."""
    _prepare[:] = [prepare]


def prepared(agent_id: UUID, context: Context) -> tuple[dict[str, Any], str]:
    """Return the stored form of a context for this activity's task, and its lock key; one query.

    Raises `ActivityNotFound`, `UnknownTask` and `InvalidContext`.
    """
    row = (
        Activity.objects.using(database()).only("agent_id", "agent_type", "metadata").filter(agent_id=agent_id).first()
    )
    if row is None:
        raise ActivityNotFound(agent_id)
    if not _prepare:
        raise AgentExecError("No task is known yet: call django.setup() before you retry with another context.")
    return _prepare[0](row.agent_type, context, row.metadata)
