"""Wire shapes of the REST API only; shared shapes are in `django_agentexec.schemas`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from ..models import Status
from ..schemas import ApprovalSchema


class EnqueuedSchema(BaseModel):
    """The response to an enqueue."""

    agent_id: UUID
    status: Status
    """`queued`, or the status of an existing activity with the same idempotency key."""
    status_url: str
    """The path of the activity."""


class TaskSchema(BaseModel):
    """A task that can be enqueued over REST."""

    name: str
    description: str
    enqueue_url: str
    context: dict[str, Any] = Field(description="The JSON schema of the context.")


class OkSchema(BaseModel):
    """The health without the monitor permission."""

    ok: bool


class ErrorSchema(BaseModel):
    """The reason of an error."""

    detail: str


class ConflictSchema(BaseModel):
    """The reason why the status of the activity does not allow a request."""

    detail: str
    reason: str
    """The cause without the id: the same text for all activities with the same cause."""
    status: Status
    """The status of the activity."""


class OtherDecisionSchema(BaseModel):
    """The decision that was made before."""

    detail: str
    approval: ApprovalSchema
