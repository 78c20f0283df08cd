"""Schemas of the wire format, shared by Python queries, REST, websockets and the terminal.

Metadata is readable in Python (`item.metadata`), but serialized as an empty object unless
`AGENTEXEC["EXPOSE_METADATA"]` is set, since it may name tenants and users.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from .conf import conf
from .models import FINISHED, LineType, Status
from .public_errors import public_error, public_message_of


class Schema(BaseModel):
    """A schema that can be validated directly from a model instance."""

    model_config = ConfigDict(from_attributes=True)


class ActivityLogSchema(Schema):
    """One line of an activity's history."""

    id: int
    type: LineType = LineType.PROGRESS
    """The kind of event."""
    message: str
    status: Status
    percentage: int
    attempt: int
    traceback: str = ""
    public_message: str | None = None
    """The message for users without the monitor permission; None: the same."""
    actor: str | None = None
    """The primary key of the user who caused it, or a terminal; None for code."""
    created_at: datetime

    @field_validator("type", mode="before")
    @classmethod
    def _known_type(cls, value: Any) -> Any:
        return value or LineType.PROGRESS

    @model_validator(mode="after")
    def _fill_in_public_text(self) -> Self:
        if self.type == LineType.PROGRESS and self.status in (Status.QUEUED, *FINISHED):
            self.type = LineType.STATUS  # written by a release without types
        if self.public_message is None and self.traceback:  # written by a release without public texts
            self.public_message = public_message_of(self.traceback)
        return self


class ActivityListItemSchema(Schema):
    """An activity in a list."""

    agent_id: UUID
    agent_type: str
    status: Status
    latest_log_message: str | None = None
    latest_log_timestamp: datetime | None = None
    percentage: int = 0
    started_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    run_after: datetime | None = None
    queue: str = ""
    lock_key: str = ""
    priority: int
    attempt: int = 0
    error: str = ""
    public_error: str = ""
    """The error for users without the monitor permission."""
    enqueued_by: str | None = None
    """The primary key of the user who enqueued it; None for code."""
    usage: dict[str, int] = Field(default_factory=dict)
    cost: Decimal | None = None
    """US dollars; null: no price is known."""
    parent_id: UUID | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("public_error", mode="before")
    @classmethod
    def _empty_if_none(cls, value: Any) -> Any:
        return value or ""

    @model_validator(mode="after")
    def _fill_in_public_text(self) -> Self:
        self.public_error = public_error(self.error, self.public_error)
        return self

    @field_serializer("metadata")
    def _only_if_exposed(self, value: dict[str, Any]) -> dict[str, Any]:
        return value if conf.EXPOSE_METADATA else {}

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def elapsed_time_seconds(self) -> int:
        """Whole seconds from the start to the end or, while it runs, to the latest message."""
        until = self.finished_at or self.latest_log_timestamp
        return int((until - self.started_at).total_seconds()) if until and self.started_at else 0


class ActivityListSchema(Schema):
    """One page of activities."""

    items: list[ActivityListItemSchema]
    total: int
    """The number of activities; with `total_is_bounded`, a lower bound."""
    total_is_bounded: bool = False
    page: int
    page_size: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def total_pages(self) -> int:
        """The number of pages at this page size."""
        return -(-self.total // self.page_size)


class ActivityDetailSchema(ActivityListItemSchema):
    """An activity with everything that may leave the server, and its log in chronological order."""

    context: dict[str, Any] = Field(default_factory=dict)
    result: Any = None
    traceback: str = ""
    worker: str = ""
    retries: int = 0
    max_retries: int = 0
    crashes: int = 0
    logs: list[ActivityLogSchema] = Field(default_factory=list)
    has_more_logs: bool = False
    """Whether there are more lines after these: a response or message has at most a few hundred lines."""
    has_earlier_logs: bool = False
    """Whether there are lines before these: by default REST returns the end of a long log."""

    @field_validator("logs", mode="before")
    @classmethod
    def _from_related_manager(cls, value: Any) -> Iterable[Any]:
        rows: Iterable[Any] = value.all() if hasattr(value, "all") else value
        return rows


class ActivityCountSchema(Schema):
    """The number of active activities."""

    count: int
