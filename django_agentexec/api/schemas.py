"""The wire shapes that only REST has; all others are in `django_agentexec.schemas`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from ..models import Status


class EnqueuedSchema(BaseModel):
    """What became of an enqueue."""

    agent_id: UUID
    status: Status
    """`queued`, unless an idempotency key led to an activity that was there already."""
    status_url: str
    """Where to look at it."""


class TaskSchema(BaseModel):
    """A task that may be enqueued from outside."""

    name: str
    description: str
    enqueue_url: str
    context: dict[str, Any] = Field(description="The JSON schema of its context.")


class OkSchema(BaseModel):
    """All that strangers may know of the health."""

    ok: bool


class ErrorSchema(BaseModel):
    """Why a request was refused."""

    detail: str


class ConflictSchema(BaseModel):
    """Why the state of the activity does not allow it."""

    detail: str
    reason: str
    """Without the id: the same for every activity that is refused for the same cause."""
    status: Status
    """The state that the activity is in."""
