"""Schemas of the wire format, shared by Python queries, REST, websockets and the terminal.

Metadata is readable in Python (`item.metadata`), but serialized as an empty object unless
`AGENTEXEC["EXPOSE_METADATA"]` is set, since it may name tenants and users.
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
from .models import (
    FINISHED,
    Approval,
    ApprovalKind,
    ApprovalScope,
    ApprovalStatus,
    LineType,
    OnExpiry,
    Priority,
    Status,
)
from .money import Money
from .public_errors import public_error, public_message_of


class Schema(BaseModel):
    """A schema that can be validated directly from a model instance."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def json_of(cls, source: object) -> dict[str, Any]:
        """Return the JSON of a model instance or of a dictionary with its values."""
        return cls.model_validate(source).model_dump(mode="json")


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
    cost: Money | None = None
    """US dollars, of its model calls whose price is known, in all attempts; null: no price is known."""
    parent_id: UUID | None = None
    waiting_for: str = ""
    """While it is suspended: `children`, `approval`, `answer`, `budget`, `limit` or `event`; otherwise empty."""
    paused: str = ""
    """While it is queued and does not start because of a pause: `queue`, `task` or `tenant`; otherwise empty."""
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("public_error", mode="before")
    @classmethod
    def _empty_if_none(cls, value: Any) -> Any:
        return value or ""

    @model_validator(mode="after")
    def _fill_in_public_text(self) -> Self:
        self.public_error = public_error(self.error, self.public_error) if self.error else ""
        return self

    @field_serializer("metadata")
    def _only_if_exposed(self, value: dict[str, Any]) -> dict[str, Any]:
        return value if conf.EXPOSE_METADATA else {}

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def priority_name(self) -> str:
        """The priority as requests name it: `high`, `normal` or `low`."""
        return Priority(self.priority).name.lower() if self.priority in Priority.values else ""

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
    conversation_id: UUID | None = None
    """The conversation of which it is a turn."""
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


class ConversationSchema(Schema):
    """A conversation in a list."""

    id: UUID
    session_id: str
    title: str = ""
    owner: str | None = None
    """The primary key of the user to whom it belongs; None for code."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    updated_at: datetime

    @field_serializer("metadata")
    def _only_if_exposed(self, value: dict[str, Any]) -> dict[str, Any]:
        return value if conf.EXPOSE_METADATA else {}


class ConversationListSchema(Schema):
    """One page of conversations, the latest first."""

    items: list[ConversationSchema]
    total: int
    """The number of conversations; with `total_is_bounded`, a lower bound."""
    total_is_bounded: bool = False
    page: int
    page_size: int


class ConversationItemSchema(Schema):
    """An item of a conversation."""

    id: int
    position: int
    """Not decreasing."""
    item: dict[str, Any]
    """A message, a tool call, its output, ... in the form of the model's API."""
    activity_id: UUID | None = None
    """The activity that wrote it; None for code outside of activities, and after its pruning."""
    created_at: datetime


class ConversationItemsSchema(Schema):
    """A part of a conversation, in order."""

    items: list[ConversationItemSchema]
    has_more: bool
    """Whether there are items after these: request them with `after`, the `id` of the last item."""


class ApprovalSchema(Schema):
    """A tool call that a person must approve, a question to a person, or a call whose outcome a person must state."""

    id: UUID
    agent_id: UUID = Field(validation_alias="activity_id")
    """The activity that waits for it."""
    agent_type: str = ""
    """The task of the activity."""
    kind: ApprovalKind
    agent: str
    tool: str
    arguments: Any = None
    """The arguments that the model chose."""
    changed_arguments: Any = None
    """The arguments that were approved in their place; null: they were not changed."""
    title: str = ""
    """The question, in words for people."""
    choices: list[Any] | None = None
    """The possible answers to a question; null: free text."""
    status: ApprovalStatus
    scope: ApprovalScope
    answer: Any = None
    reason: str = ""
    requested_at: datetime
    expires_at: datetime | None = None
    on_expiry: OnExpiry
    decided_by: str | None = None
    """The primary key of a user, or a terminal; null for code."""
    decided_at: datetime | None = None
    assigned_to: str | None = None
    """The primary key of the user who is asked to decide; null: nobody in particular."""

    @model_validator(mode="before")
    @classmethod
    def _with_task(cls, value: Any) -> Any:
        if isinstance(value, Approval):
            names = cls.model_fields.keys() - {"agent_id", "agent_type"}
            fields = {name: getattr(value, name) for name in names}
            is_loaded = "activity" in value._state.fields_cache
            fields |= {"activity_id": value.activity_id, "agent_type": value.activity.agent_type if is_loaded else ""}
            return fields
        return value


class ApprovalListSchema(Schema):
    """One page of approvals."""

    items: list[ApprovalSchema]
    total: int
    """The number of approvals; with `total_is_bounded`, a lower bound."""
    total_is_bounded: bool = False
    page: int
    page_size: int
