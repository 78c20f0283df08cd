"""Conversion of a corrected context to its stored form, by a function that `tasks`, a layer above, registers."""

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
"""Returns the stored form of a context for the task of this name, and the lock key for it and this metadata."""

_prepare: list[Prepare] = []


def register_prepare(prepare: Prepare) -> None:
    """Set the function that converts contexts to their stored form."""
    _prepare[:] = [prepare]


def prepare_context(agent_id: UUID, context: Context) -> tuple[dict[str, Any], str]:
    """Return the stored form of a context for this activity's task, and its lock key; one query.

    Raises `ActivityNotFound`, `UnknownTask` and `InvalidContext`.
    """
    row = (
        Activity.objects.using(database()).only("agent_id", "agent_type", "metadata").filter(agent_id=agent_id).first()
    )
    if row is None:
        raise ActivityNotFound(agent_id)
    if not _prepare:
        raise AgentExecError("No task is registered: call django.setup() before retry(context=...).")
    return _prepare[0](row.agent_type, context, row.metadata)
