"""The wire shapes, once: Python queries, REST, websocket and the terminal all speak them.

Metadata is readable in Python (`item.metadata`), but serialized as an empty object unless
`AGENTEXEC["EXPOSE_METADATA"]` is set: it may name tenants and users.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
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
from .models import Status
from .public_errors import public_error, public_message_of


class Schema(BaseModel):
    """A shape that can be read straight from a model instance."""

    model_config = ConfigDict(from_attributes=True)


class ActivityLogSchema(Schema):
    """One line of an activity's history."""

    id: int
    message: str
    status: Status
    percentage: int
    attempt: int
    traceback: str = ""
    public_message: str | None = None
    """What users who may not monitor read instead of `message`; None: the same."""
    actor: str | None = None
    """Who caused it: the primary key of a user, or a terminal; None for code."""
    created_at: datetime

    @model_validator(mode="after")
    def _closed_by_default(self) -> Self:
        if self.public_message is None and self.traceback:  # of a release that stored no public text
            self.public_message = public_message_of(self.traceback)
        return self


class ActivityListItemSchema(Schema):
    """What a list shows of an activity."""

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
    """What users who may not monitor read instead of `error`."""
    enqueued_by: str | None = None
    """The primary key of the user who enqueued it; None for code."""
    usage: dict[str, int] = Field(default_factory=dict)
    parent_id: UUID | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("public_error", mode="before")
    @classmethod
    def _empty_if_none(cls, value: Any) -> Any:
        return value or ""

    @model_validator(mode="after")
    def _closed_by_default(self) -> Self:
        self.public_error = public_error(self.error, self.public_error)
        return self

    @field_serializer("metadata")
    def _only_if_exposed(self, value: dict[str, Any]) -> dict[str, Any]:
        return value if conf.EXPOSE_METADATA else {}

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def elapsed_time_seconds(self) -> int:
        """Whole seconds from the start to the end, or to the latest message."""
        until = self.finished_at or self.latest_log_timestamp
        return int((until - self.started_at).total_seconds()) if until and self.started_at else 0


class ActivityListSchema(Schema):
    """One page of activities."""

    items: list[ActivityListItemSchema]
    total: int
    """How many there are; with `total_is_bounded`, at least so many."""
    total_is_bounded: bool = False
    page: int
    page_size: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def total_pages(self) -> int:
        """Pages in all, at this page size."""
        return -(-self.total // self.page_size)


class ActivityDetailSchema(ActivityListItemSchema):
    """All of an activity that may leave the server, with its log from first to last."""

    context: dict[str, Any] = Field(default_factory=dict)
    result: Any = None
    traceback: str = ""
    worker: str = ""
    retries: int = 0
    max_retries: int = 0
    crashes: int = 0
    logs: list[ActivityLogSchema] = Field(default_factory=list)
    has_more_logs: bool = False
    """Whether the log goes on after these lines: a request or message has some hundred of them at most."""
    has_earlier_logs: bool = False
    """Whether there are lines before these: of a long log, REST gives the last ones unless asked for others."""

    @field_validator("logs", mode="before")
    @classmethod
    def _from_related_manager(cls, value: Any) -> Iterable[Any]:
        rows: Iterable[Any] = value.all() if hasattr(value, "all") else value
        return rows


class ActivityCountSchema(Schema):
    """How many activities are active."""

    count: int
